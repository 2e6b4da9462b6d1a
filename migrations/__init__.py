"""How the stored shape changed: migration scripts in Beanie's own format, oldest first.

Every script is idempotent, safe while older code is running, and spells out the names, keys and
options of its own day. ``upgrade_schema`` runs them; with
``session-store schema copy`` a team gets copies for the folder of its own ``beanie migrate``.
"""
