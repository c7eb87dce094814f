"""The usage ledger: one record for each attempt, whatever happens; and what is added up is what the machine did."""

import json
import signal
import subprocess
import threading

import tiny_onnx
from conftest import BINARY

CALLS = {"inputs": [{"name": name, "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]} for name in "ab"]}


def cli(server, key, *arguments, check=True):
    command = [BINARY, "usage", *arguments, "--server", server.url, "--key", key]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done


def request_id(reply):
    return reply.headers["x-request-id"]


def records(api, tenant):
    """Every record of a tenant, in pages."""
    found, after = [], ""
    while True:
        page = api.expect("GET", f"/admin/v1/tenants/{tenant}/usage/records?limit=100{after}")["records"]
        if not page:
            return found
        found += page
        after = f"&after={page[-1]['id']}"


def test_every_attempt_is_recorded_and_all_adds_up(new_server):
    server = new_server("[workers]\nslots = 2\n")
    acme, globex = server.tenant("acme"), server.tenant("globex")
    assert acme.push("acme", "sums", tiny_onnx.sum_and_difference())["state"] == "ready"
    answered = [acme.infer("sums", CALLS) for _ in range(5)]
    assert all(reply.status == 200 for reply in answered)
    wrong = acme.infer("sums", {"inputs": CALLS["inputs"][:1]})
    late = acme.infer("sums", {**CALLS, "parameters": {"timeout": 1}})
    assert wrong.status == 400 and late.status in (200, 504)
    assert acme.infer("nothing", CALLS).status == 404

    found = records(acme, "acme")
    by_request = {record["request_id"]: record for record in found if record["kind"] == "inference"}
    assert len(by_request) == len([record for record in found if record["kind"] == "inference"]) == 7
    for reply in answered:
        record = by_request[request_id(reply)]
        assert (record["outcome"], record["tenant"], record["model"], record["version"]) == ("ok", "acme", "acme/sums", 1)
        assert record["compute_ns"] > 0 and record["aborted_ns"] == 0 and record["duration_ns"] >= record["compute_ns"]
        assert record["bytes_out"] == len(reply.body) and record["bytes_in"] == len(json.dumps(CALLS).encode())
    assert by_request[request_id(wrong)]["outcome"] == "failed"
    [load] = [record for record in found if record["kind"] == "load"]
    assert load["outcome"] == "ok" and load["load_ns"] > 0 and load["compute_ns"] == 0
    # Beside the slots: no device time.
    [registration] = [record for record in found if record["kind"] == "registration"]
    assert registration["outcome"] == "ok" and registration["cpu_ns"] > 0 and registration["duration_ns"] > 0
    assert [registration[f"{cause}_ns"] for cause in ["compute", "padding", "load", "aborted"]] == [0] * 4

    sums = acme.expect("GET", "/admin/v1/tenants/acme/usage?by=kind")["lines"]
    assert {line["kind"]: line["attempts"] for line in sums} == {"inference": 7, "load": 1, "registration": 1}
    assert sum(line["compute_ns"] for line in sums) == sum(record["compute_ns"] for record in found)
    # Nobody else's business.
    for path in ["usage", "usage/records"]:
        assert globex.call("GET", f"/admin/v1/tenants/acme/{path}").status == 404
        assert globex.call("GET", f"/admin/v1/{path}").status == 403
    assert records(globex, "globex") == []
    assert acme.call("GET", "/admin/v1/usage/accounts").status == 403
    refused = acme.call("GET", "/admin/v1/tenants/acme/usage?from=yesterday")
    assert refused.status == 400 and "2026-11-30" in refused.json["error"]

    # Ended in order, everything adds up to the nanosecond.
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    server.process.stdout.close()
    server.start()
    key = server.admin.key
    accounts = server.admin.expect("GET", "/admin/v1/usage/accounts")["accounts"]
    assert [account["state"] for account in accounts] == ["running", "ended"]
    ended = accounts[1]
    assert ended["unaccounted_ns"] == 0 and ended["charged_ns"] == sum(
        record[f"{cause}_ns"] for record in found for cause in ["compute", "padding", "load", "aborted"])
    assert ended["wall_ns"] * 2 == ended["charged_ns"] + ended["system_ns"] + ended["idle_ns"]
    # What was loaded was in memory until then.
    [residency] = [record for record in records(server.api(acme.key), "acme") if record["kind"] == "residency"]
    assert residency["outcome"] == "ok" and residency["model"] == "acme/sums" and residency["duration_ns"] > 0
    seconds = residency["duration_ns"] / 1e9
    assert 0 < residency["resident_byte_seconds"] < seconds * (64 << 20)
    checked = cli(server, key, "check").stdout
    assert "ended" in checked and "running" in checked
    shown = cli(server, key, "show", "--tenant", "acme", "--by", "deployment,outcome").stdout
    assert "acme/sums" in shown and "failed" in shown
    events = [json.loads(line) for line in cli(server, key, "export", "--all", "--format", "cloudevents").stdout.splitlines()]
    assert {event["data"]["request_id"] for event in events if "request_id" in event["data"]} == set(by_request)
    assert all(event["specversion"] == "1.0" and event["subject"] == "acme" for event in events)


def test_a_killed_server_loses_no_record_of_what_it_answered(new_server):
    server = new_server()
    acme = server.tenant("acme")
    assert acme.push("acme", "sums", tiny_onnx.sum_and_difference())["state"] == "ready"
    answered = []
    for _ in range(4):
        acme = server.api(acme.key)
        seen = threading.Semaphore(0)

        def ask(api=acme, seen=seen):
            try:
                while (reply := api.infer("sums", CALLS)).status == 200:
                    answered.append(request_id(reply))
                    seen.release()
            except (OSError, EOFError, ValueError) as error:
                # The server died in the middle of an answer.
                assert error

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(60):
            seen.acquire()
        server.signal(signal.SIGKILL)
        server.wait()
        for thread in threads:
            thread.join()
        server.process.stdout.close()
        server.start()
    found = records(server.api(acme.key), "acme")
    outcomes = {}
    for record in found:
        outcomes.setdefault(record.get("request_id"), []).append(record["outcome"])
    assert len(answered) >= 240 and len(set(answered)) == len(answered)
    assert {request: outcomes.get(request) for request in answered if outcomes.get(request) != ["ok"]} == {}
    accounts = server.admin.expect("GET", "/admin/v1/usage/accounts")["accounts"]
    assert [account["state"] for account in accounts] == ["running"] + ["killed"] * 4
