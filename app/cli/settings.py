"""What a call works on: from its options, the environment, or a file of settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from .blanks import BlankSettingError, is_blank
from .document_classes import DocumentClasses

ENVIRONMENT = "SESSION_STORE_"


class Settings(BaseSettings):
    """The settings that an environment may hold, each as ``SESSION_STORE_`` and its name.

    A file of them is read only where it is named: one that happens to be in the directory belongs
    to an application, and could lead the command to another database than the one expected.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT, extra="ignore", env_file_encoding="utf-8"
    )

    mongodb_url: SecretStr | None = None
    database: str | None = None
    tenant: str = "default"
    entries: str | None = None
    summaries: str | None = None
    actor: str | None = None
    """Who is recorded in the audit; without one, nothing is."""
    prices: str | None = None
    mongod: str | None = None
    """The program that ``--embedded`` starts."""
    keys: Path | None = None
    """The file of keys that sessions are encrypted with."""
    keys_subject: str | None = None
    """The field of metadata whose values have keys of their own."""
    source_url: SecretStr | None = None
    """Where ``adopt`` and ``copy`` read from."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Options beat the environment, and that the file; none of them may be empty."""
        return init_settings, _Filled(env_settings), _Filled(dotenv_settings)


class _Filled(PydanticBaseSettingsSource):
    """A source of settings in which an empty one is a mistake, also where another beats it."""

    def __init__(self, source: PydanticBaseSettingsSource) -> None:
        super().__init__(source.settings_cls)
        self._source = source

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """As the source has it."""
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        """All settings of the source."""
        found = self._source()
        for name, value in found.items():
            if is_blank(value):
                raise BlankSettingError(
                    f"{ENVIRONMENT}{name.upper()} is set but empty. Set it to what is meant, or "
                    "unset it."
                )
        return found


@dataclass(frozen=True, slots=True)
class Options:
    """The global options of one call, with the settings around them."""

    settings: Settings
    embedded: Path | None = None
    """Where the data of a server of the call's own is, instead of the server of a URL."""
    as_json: bool = False
    has_url: bool = False
    """Whether the URL was an option of the call."""
    has_tenant: bool = False
    """Whether the tenant was one."""

    @property
    def tenant(self) -> str:
        """Whose sessions are meant."""
        return self.settings.tenant

    @property
    def named_tenant(self) -> str | None:
        """The same, but ``None`` where nobody was named."""
        return self.settings.tenant if "tenant" in self.settings.model_fields_set else None

    @property
    def classes(self) -> DocumentClasses:
        """The names of the Document classes."""
        return DocumentClasses(self.settings.entries, self.settings.summaries)

    @property
    def actor(self) -> str | None:
        """Who is recorded in the audit, if it is kept."""
        return self.settings.actor

    @property
    def source_url(self) -> str | None:
        """The connection string of a source, if one is set."""
        url = self.settings.source_url
        return None if url is None else url.get_secret_value()

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """The options that were given, by name; what was not comes from around them.

        Raises:
            BlankSettingError: one around them is empty.
            ValueError, OSError: the file of settings cannot be read.
        """
        values = {name: given[name] for name in Settings.model_fields if given.get(name)}
        if given.get("url"):
            values["mongodb_url"] = given["url"]
        # A parameter that type checkers do not know.
        settings: Any = Settings
        found: Settings = settings(_env_file=given.get("env_file"), **values)
        embedded: str | Path | None = given.get("embedded")
        return cls(
            found,
            # Behind a command, an older Typer leaves it a string.
            None if embedded is None else Path(embedded),
            bool(given.get("as_json")),
            bool(given.get("url")),
            bool(given.get("tenant")),
        )
