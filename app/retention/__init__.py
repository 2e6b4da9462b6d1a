"""How long sessions are kept, and who is gone before: policies, holds, removal."""
