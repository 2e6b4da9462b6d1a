"""A service with Beanie documents of its own, the store's next to them, and the real agent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from beanie_session_store.app.loopback.messages_api import LoopbackMessagesApi
from beanie_session_store.demo.agent import Host, run_python
from beanie_session_store.demo.script import obedient_script

FOLDER = Path(__file__).parents[1] / "example_app"

# In a process of its own, for the agent inherits the environment of the service around it.
VISIT = """
import json, sys
from pathlib import Path

job = json.load(sys.stdin)
sys.path.insert(0, job["folder"])

from app import create_app
from fastapi.testclient import TestClient
from beanie_session_store.app.database.driver import open_client

app = create_app(open_client(job["url"]), Path(job["directory"]), job["database"])
with TestClient(app) as http:
    def customer(name):
        return "/customers/" + http.post("/customers", json={"name": name}).json()["_id"]

    def ask(owner, prompt, session_id=None):
        question = {"prompt": prompt, "session_id": session_id}
        answer = http.post(owner + "/ask", json=question)
        if session_id in refused:
            return answer.status_code
        assert answer.status_code == 200, answer.text
        return answer.json()["session_id"]

    refused = []
    acme, rival = customer("Acme"), customer("Rival")
    first = ask(acme, "PLAIN hello")
    second = ask(acme, "PLAIN something else")
    theirs = ask(rival, "PLAIN a secret")
    assert ask(acme, "PLAIN and again", first) == first
    transcript = http.get(f"{acme}/conversations/{first}").json()
    listed = http.get(acme + "/conversations").json()
    spied = [http.get(f"{acme}/conversations/{theirs}").status_code]
    spied.append(http.delete(f"{acme}/conversations/{theirs}").status_code)
    spied.append(http.get(f"{acme}/conversations/{theirs}/live").status_code)
    refused.append(theirs)
    spied.append(ask(acme, "PLAIN what was said before?", theirs))
    kept = http.get(rival + "/conversations").json()
    assert http.delete(f"{acme}/conversations/{second}").status_code == 204
    left = http.get(acme + "/conversations").json()
    gone = [http.get(f"{acme}/conversations/{second}").status_code]
    refused.append(second)
    gone.append(ask(acme, "PLAIN go on", second))
print(json.dumps({
    "first": first, "second": second, "theirs": theirs, "transcript": transcript,
    "listed": listed, "spied": spied, "kept": kept, "left": left, "gone": gone,
}))
"""


@pytest.mark.agent
def test_a_service_keeps_its_tenants_agents_next_to_its_own_documents(
    tmp_path: Path, mongo_url: str, database_name: str
) -> None:
    (tmp_path / "tmp").mkdir()
    work = tmp_path / "work"
    work.mkdir()
    visit = tmp_path / "visit.py"
    visit.write_text(VISIT)
    with MongoClient[dict[str, Any]](mongo_url) as client:
        client[database_name]["customers"].insert_one({"name": "was there before"})
        with LoopbackMessagesApi(obedient_script) as api:
            job = {
                "folder": str(FOLDER),
                "url": mongo_url,
                "database": database_name,
                "directory": str(work.resolve()),
            }
            environment = Host(tmp_path, api.url).environment()
            seen = json.loads(run_python([str(visit)], environment, job, 150))
            told = json.dumps([request["messages"] for request in api.requests])
        # Nothing of a conversation is left on the disk of the service.
        assert not list((tmp_path / ".claude").rglob("*.jsonl"))
        assert "what was said before" not in told
        database = client[database_name]
        customers = {row["name"] for row in database["customers"].find()}
        tenants = {
            row["tenant"]: row["metadata"]["customer"]
            for row in database["claude_transcript_summaries"].find()
        }
    assert {row["session_id"] for row in seen["listed"]} == {seen["first"], seen["second"]}
    assert all(row["modified_ms"] > 0 for row in seen["listed"])
    prompts = [entry for entry in seen["transcript"] if "PLAIN" in str(entry.get("message"))]
    assert len(prompts) >= 2
    # Another tenant's conversation can be neither read, deleted, watched nor resumed.
    assert seen["spied"] == [404, 204, 404, 404]
    assert [row["session_id"] for row in seen["kept"]] == [seen["theirs"]]
    assert [row["session_id"] for row in seen["left"]] == [seen["first"]]
    assert seen["gone"] == [404, 404]
    assert customers == {"was there before", "Acme", "Rival"}
    assert sorted(tenants.values()) == ["Acme", "Rival"]
