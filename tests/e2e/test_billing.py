"""Prices, invoices and budgets, over the real ledger: what is billed is what was used, and what is bounded stays within its bounds."""

import csv
import io
import json
import signal
import subprocess
import threading
from datetime import datetime, timedelta, timezone
from decimal import ROUND_HALF_EVEN, Decimal

import grpc
import openai
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

import tiny_onnx
from conftest import BINARY, until
from test_pipelines import studio  # noqa: F401 (a fixture)

CALLS = {"inputs": [{"name": name, "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]} for name in "ab"]}
PRICES = [{"meter": "device_compute", "price": "0.36", "per": "hour"}, {"meter": "requests", "price": "1.25", "per": "thousand"},
          {"meter": "bytes_in", "price": "0.09", "per": "gb"}, {"meter": "device_load", "price": "0", "per": "hour"}]
# Nanoseconds, requests or bytes in what a price is for.
SIZES = {"device_compute": 3_600_000_000_000, "requests": 1_000, "bytes_in": 1_000_000_000, "device_load": 3_600_000_000_000}
NANO = Decimal("0.000000001")


def plan(name="standard", days_ago=40, prices=PRICES, **more):
    begin = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days_ago)
    return {"name": name, "currency": "EUR", "valid_from_ms": int(begin.timestamp() * 1000), "prices": prices, **more}


def days():
    """Yesterday and today, so that a midnight in the middle of a test is in it."""
    today = datetime.now(timezone.utc).date()
    return f"from={today - timedelta(days=1)}&to={today + timedelta(days=1)}"


def cli(server, key, *arguments):
    done = subprocess.run([BINARY, *arguments, "--server", server.url, "--key", key], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def budget(api, tenant, meter, amount, period="month", **more):
    return api.call("PUT", f"/admin/v1/tenants/{tenant}/budgets", {"meter": meter, "period": period, "amount": amount, **more})


def listed(api, tenant):
    return {known["id"]: known for known in api.expect("GET", f"/admin/v1/tenants/{tenant}/budgets")["budgets"]}


def together(count, call):
    """Calls so often at the same time; the answers."""
    answers, begin = [], threading.Barrier(count)

    def one():
        begin.wait()
        answers.append(call())

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def told(api, tenant):
    """The thresholds in the audit trail, the oldest first."""
    records = api.expect("GET", f"/admin/v1/tenants/{tenant}/audit?limit=1000")["records"]
    return [(record["object"], record["outcome"]) for record in reversed(records) if record["action"] == "budget.threshold"]


def restart(server):
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    server.process.stdout.close()
    server.start()


@pytest.fixture
def house(new_server):
    """A server with two tenants, the first of which has a model."""
    server = new_server('[workers]\nslots = 2\n[billing]\nprovider = "Example Compute"\nregion = "eu-central"\n')
    acme, globex = server.tenant("acme"), server.tenant("globex")
    assert acme.push("acme", "sums", tiny_onnx.sum_and_difference())["state"] == "ready"
    return server, acme, globex


def test_an_invoice_is_what_was_used_times_what_it_costs(house, tmp_path):
    server, acme, _ = house
    server.admin.expect("POST", "/admin/v1/prices", plan())
    assert all(acme.infer("sums", CALLS).status == 200 for _ in range(7))
    invoice = acme.expect("GET", f"/admin/v1/tenants/acme/invoice?{days()}")
    usage = acme.expect("GET", f"/admin/v1/tenants/acme/usage?{days()}")["lines"]
    used = {"device_compute": sum(line["compute_ns"] for line in usage), "device_load": sum(line["load_ns"] for line in usage),
            "requests": 7, "bytes_in": 7 * len(json.dumps(CALLS).encode())}
    assert {line["meter"]: int(line["used"]) for line in invoice["lines"]} == used
    total = Decimal(0)
    for line in invoice["lines"]:
        [price] = [Decimal(price["price"]) for price in PRICES if price["meter"] == line["meter"]]
        cost = (used[line["meter"]] * price / SIZES[line["meter"]]).quantize(NANO, ROUND_HALF_EVEN)
        assert Decimal(line["cost"]) == cost and line["plan"] == "standard" and line["model"] == "acme/sums"
        total += cost
    assert Decimal(invoice["sum"]) == total and invoice["currency"] == "EUR"
    assert Decimal(invoice["total"]) == total + Decimal(invoice["rounding"]) == total.quantize(Decimal("0.01"), ROUND_HALF_EVEN)
    # The same, byte for byte, as often as one asks.
    again = acme.get(f"/admin/v1/tenants/acme/invoice?{days()}")
    assert again.json == invoice and again.headers["content-type"] == "application/json"

    for reply in [acme.get(f"/admin/v1/tenants/acme/invoice?format=csv&{days()}"),
                  acme.call("GET", f"/admin/v1/tenants/acme/invoice?{days()}", headers={"Accept": "text/csv"})]:
        assert reply.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(reply.body.decode())))
        assert {row["meter"]: row["used"] for row in rows if row["used"]} == {meter: str(of) for meter, of in used.items()}
        assert sum(Decimal(row["cost"]) for row in rows) == Decimal(invoice["total"])
    for path, api in [("/admin/v1/focus", server.admin), ("/admin/v1/tenants/acme/focus", acme)]:
        rows = list(csv.DictReader(io.StringIO(api.get(f"{path}?{days()}").body.decode())))
        assert {"BilledCost", "ChargePeriodStart", "SubAccountName", "PricingQuantity", "x_PricePlan"} <= set(rows[0]), rows
        assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal(invoice["total"])
        assert {row["SubAccountName"] for row in rows} == {"acme"}
        assert {(row["ProviderName"], row["InvoiceIssuerName"], row["RegionId"]) for row in rows} == {
            ("Example Compute", "Example Compute", "eu-central")}
    shown = cli(server, acme.key, "invoice", "show", "acme")
    assert "device_compute" in shown and f"total {invoice['total']} EUR" in shown
    month = datetime.now(timezone.utc).strftime("%Y-%m")
    assert cli(server, acme.key, "invoice", "show", "acme", "--month", month, "--csv").startswith("invoice,tenant,")
    assert cli(server, server.admin.key, "invoice", "focus", "--month", month).startswith("BilledCost,")

    # A plan of its own, which cannot change what yesterday cost, and another from next year on.
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"name": "acme-special", "currency": "EUR", "prices": PRICES[:1]}))
    cli(server, server.admin.key, "price", "set", "--file", file, "--tenant", "acme")
    cli(server, server.admin.key, "price", "set", "--file", file, "--tenant", "acme", "--from", "2099-01-01")
    plans = acme.expect("GET", "/admin/v1/tenants/acme/prices")
    assert plans["in_force"]["name"] == "acme-special" and len(plans["plans"]) == 2
    assert acme.expect("GET", f"/admin/v1/tenants/acme/invoice?{days()}") == invoice
    assert server.admin.call("POST", "/admin/v1/tenants/acme/prices", plan("late", 3)).status == 409
    assert "2099-01-01" in cli(server, acme.key, "price", "list", "--tenant", "acme")
    cli(server, server.admin.key, "price", "remove", "2099-01-01", "--tenant", "acme")
    server.admin.expect("DELETE", f"/admin/v1/tenants/acme/prices/{plans['in_force']['valid_from_ms']}")
    plans = acme.expect("GET", "/admin/v1/tenants/acme/prices")
    assert plans["in_force"]["name"] == "standard" and [known["name"] for known in plans["plans"]] == ["acme-special"]


def test_exactly_so_many_requests_get_through_and_a_restart_keeps_the_count(house):
    server, acme, _ = house
    assert budget(server.admin, "acme", "requests", 20).status == 200
    answers = together(50, lambda: acme.infer("sums", CALLS))
    # Whoever was only in the way of what was running may try again; whoever does, is let in until it is used up.
    while sum(answer.status == 200 for answer in answers) < 20:
        answers += together(10, lambda: acme.infer("sums", CALLS))
    assert sum(answer.status == 200 for answer in answers) == 20
    refused = [answer for answer in answers if answer.status != 200]
    assert {(answer.status, answer.json["code"], answer.json["reason"]) for answer in refused} == {
        (429, "resource_exhausted", "budget_requests")}
    late = acme.infer("sums", CALLS)
    assert late.status == 429 and "used up" in late.error and int(late.headers["retry-after"]) > 1
    assert late.headers["x-tenantry-budget-limit"] == "20;meter=requests;period=month"
    assert late.headers["x-tenantry-budget-remaining"] == "0" and int(late.headers["x-tenantry-budget-reset"]) > 0
    seen = listed(acme, "acme")["requests.month"]
    assert (seen["used"], seen["reserved"], seen["remaining"], seen["platform"]) == (20, 0, 0, True)
    thresholds = [("requests.month", f"{percent}%") for percent in [50, 80, 100]]
    until(lambda: told(acme, "acme") == thresholds)
    metrics = server.admin.get("/admin/v1/metrics").body.decode()
    assert 'tenantry_budget_used_ratio{tenant="acme",scope="tenant",meter="requests",period="month"} 1.0' in metrics, metrics
    assert 'tenantry_budget_thresholds_total{tenant="acme",meter="requests"} 3' in metrics
    assert 'reason="budget_requests"' in metrics

    restart(server)
    acme = server.api(acme.key)
    assert acme.infer("sums", CALLS).status == 429
    assert listed(acme, "acme")["requests.month"]["used"] == 20
    # What the platform set is the platform's.
    for reply in [acme.call("DELETE", "/admin/v1/tenants/acme/budgets/requests.month"), budget(acme, "acme", "requests", 99)]:
        assert reply.status == 403 and "platform" in reply.error
    # More of it keeps what is used.
    assert budget(server.admin, "acme", "requests", 22).json["used"] == 20
    reply = acme.infer("sums", CALLS)
    assert reply.status == 200 and reply.headers["x-tenantry-budget-remaining"] == "1"
    assert acme.infer("sums", CALLS).status == 200 and acme.infer("sums", CALLS).status == 429
    server.admin.expect("DELETE", "/admin/v1/tenants/acme/budgets/requests.month")
    reply = acme.infer("sums", CALLS)
    assert reply.status == 200 and "x-tenantry-budget-limit" not in reply.headers
    assert told(acme, "acme") == thresholds
    assert server.admin.call("DELETE", "/admin/v1/tenants/acme/budgets/requests.month").status == 404


def test_device_time_is_overrun_by_what_runs_at_most(house):
    server, acme, _ = house
    limit_ns = 3_000_000
    assert budget(acme, "acme", "device_time", limit_ns, "day").json["platform"] is False
    # What was loaded before counts, too; from there on until it is used up.
    statuses = []
    while (reply := acme.infer("sums", CALLS)).status == 200:
        statuses.append(reply.status)
    assert reply.json["reason"] == "budget_device_time"
    records = acme.expect("GET", "/admin/v1/tenants/acme/usage/records?limit=1000")["records"]
    spent = [sum(record[f"{cause}_ns"] for cause in ["compute", "padding", "load", "aborted"]) for record in records]
    seen = listed(acme, "acme")["device_time.day"]
    assert seen["used"] == sum(spent) and seen["reserved"] == 0
    # One after the other: only the last one can have gone over it.
    assert sum(spent) - max(spent) <= limit_ns
    acme.expect("DELETE", "/admin/v1/tenants/acme/budgets/device_time.day")
    assert acme.infer("sums", CALLS).status == 200


def test_budgets_of_money_deployments_and_keys(house):
    server, acme, _ = house
    wrong = budget(acme, "acme", "money", 10_000_000)
    assert wrong.status == 400 and "price plan" in wrong.error
    server.admin.expect("POST", "/admin/v1/prices", plan(prices=[{"meter": "requests", "price": "0.01", "per": "one"}]))
    assert budget(acme, "acme", "money", 50_000_000, currency="USD").status == 400
    assert budget(acme, "acme", "money", 50_000_000).json["currency"] == "EUR"
    statuses = [acme.infer("sums", CALLS).status for _ in range(7)]
    assert statuses == [200] * 5 + [429] * 2
    assert acme.infer("sums", CALLS).json["reason"] == "budget_money"
    assert "0.05 EUR" in cli(server, acme.key, "budget", "list", "acme")
    cli(server, acme.key, "budget", "remove", "acme", "money.month")

    # Of one key only, and of one deployment only.
    key = acme.new_key("acme", "invoker")
    with_key = server.api(key["key"])
    cli(server, acme.key, "budget", "set", "acme", "requests", "2", "--per", "day", "--of-key", key["id"])
    assert [with_key.infer("sums", CALLS).status for _ in range(3)] == [200, 200, 429]
    assert acme.infer("sums", CALLS).status == 200
    assert acme.push("acme", "others", tiny_onnx.sum_and_difference())["state"] == "ready"
    assert budget(acme, "acme", "requests", 1, "hour", model="others").json["model"] == "others"
    reply = acme.infer("others", CALLS)
    assert reply.status == 200 and reply.headers["x-tenantry-budget-limit"] == "1;meter=requests;period=hour"
    assert acme.infer("others", CALLS).status == 429 and acme.infer("sums", CALLS).status == 200
    # A wrong request that the model refuses uses up a request, as the ledger has it; one that is only watched is let in.
    assert budget(acme, "acme", "requests", 0, "day", enforcement="watch").status == 200
    assert acme.infer("sums", CALLS).status == 200
    # Wrong ones.
    for more in [{"model": "nothing"}, {"key": "key_" + "0" * 32}]:
        assert budget(acme, "acme", "requests", 1, **more).status == 404
    assert budget(acme, "acme", "requests", 1, model="sums", key=key["id"]).status == 400
    assert budget(acme, "acme", "requests", 1, thresholds_percent=[80, 50]).status == 400


def test_over_grpc_what_is_left_is_metadata(house):
    server, acme, _ = house
    cli(server, acme.key, "budget", "set", "acme", "requests", "2", "--per", "day")
    request = service_pb2.ModelInferRequest(model_name="sums")
    for name in "ab":
        tensor = request.inputs.add(name=name, datatype="FP32", shape=[1, 3])
        tensor.contents.fp32_contents.extend([1, 2, 3])
    metadata = [("authorization", f"Bearer {acme.key}")]
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for left in ["1", "0"]:
            _, call = stub.ModelInfer.with_call(request, metadata=metadata)
            said = dict(call.initial_metadata())
            assert (said["x-tenantry-budget-limit"], said["x-tenantry-budget-remaining"]) == ("2;meter=requests;period=day", left)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(request, metadata=metadata)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        said = dict(refused.value.trailing_metadata())
        assert said["error-reason"] == "budget_requests" and said["x-tenantry-budget-remaining"] == "0"


def test_kept_answers_are_requests_without_device_time(house):
    server, acme, _ = house
    deployment = acme.expect("GET", "/admin/v1/tenants/acme/models/sums/deployment")
    acme.expect("PUT", "/admin/v1/tenants/acme/models/sums/deployment",
                {"generation": deployment["generation"], "version": 1, "max_replicas": 1, "cache_ttl_ms": 600_000})
    assert acme.infer("sums", CALLS).status == 200
    assert budget(acme, "acme", "requests", 100).status == budget(acme, "acme", "device_time", 10**12).status == 200
    before = listed(acme, "acme")
    assert all(acme.infer("sums", CALLS).status == 200 for _ in range(3))
    after = listed(acme, "acme")
    assert after["requests.month"]["used"] == before["requests.month"]["used"] + 3 == 4
    assert after["device_time.month"]["used"] == before["device_time.month"]["used"]


def test_openais_clients_read_of_quotas(studio):  # noqa: F811
    studio.has("sentences", "minilm/model.onnx", "minilm/tokenizer.json")
    key = studio.api.new_key("studio", "invoker")
    assert budget(studio.api, "studio", "tokens", 12, "month", key=key["id"]).status == 200
    with openai.OpenAI(base_url=f"{studio.server.url}/v1", api_key=key["key"], max_retries=0) as client:
        answer = client.embeddings.with_raw_response.create(model="sentences", input="A cat sleeps on the sofa.")
        used = answer.parse().usage.total_tokens
        assert 1 < used <= 12
        assert answer.headers["x-ratelimit-limit-tokens"] == "12"
        assert answer.headers["x-ratelimit-remaining-tokens"] == str(12 - used)
        assert answer.headers["x-ratelimit-reset-tokens"].endswith("s")
        with pytest.raises(openai.RateLimitError) as refused:
            for _ in range(12):
                client.embeddings.create(model="sentences", input="A cat sleeps on the sofa.")
        assert (refused.value.code, refused.value.type) == ("insufficient_quota", "insufficient_quota")
        headers = refused.value.response.headers
        assert headers["x-should-retry"] == "false" and headers["x-ratelimit-remaining-tokens"] == "0"
    studio.api.expect("DELETE", f"/admin/v1/tenants/studio/budgets/tokens.month.{key['id']}")


def test_who_may_see_and_change_what(house):
    server, acme, globex = house
    begin = plan()["valid_from_ms"]
    server.admin.expect("POST", "/admin/v1/tenants/acme/prices", plan())
    assert budget(acme, "acme", "requests", 1000, "day").status == 200
    invoker = server.api(acme.new_key("acme", "invoker")["key"])
    viewer = server.api(acme.new_key("acme", "viewer")["key"])
    own = "/admin/v1/tenants/acme"
    limit = {"meter": "requests", "period": "day", "amount": 5}
    reads = [("GET", f"{own}/{path}", None) for path in ["prices", "invoice", "focus", "budgets"]]
    sets = [("PUT", f"{own}/budgets", limit), ("DELETE", f"{own}/budgets/requests.day", None)]
    manages = [("POST", f"{own}/prices", plan("mine", -1)), ("DELETE", f"{own}/prices/{begin}", None)]
    for call in reads + sets + manages:
        assert globex.call(*call).status == 404, call
        assert invoker.call(*call).status == 403, call
        assert viewer.call(*call).status == (200 if call in reads else 403), call
    assert [acme.call(*call).status for call in manages] == [403, 403]
    for call in [("GET", "/admin/v1/prices", None), ("POST", "/admin/v1/prices", plan()), ("GET", "/admin/v1/focus", None),
                 ("DELETE", f"/admin/v1/prices/{begin}", None)]:
        assert acme.call(*call).status == 403, call
    assert [acme.call(*call).status for call in reads + sets] == [200] * 5 + [204]
    actions = {record["action"] for record in acme.expect("GET", f"{own}/audit?limit=1000")["records"]}
    assert {"price.add", "budget.set", "budget.remove"} <= actions


def test_without_the_ledger_there_are_no_budgets(new_server):
    server = new_server("[ledger]\nenabled = false\n")
    acme = server.tenant("acme")
    reply = budget(acme, "acme", "requests", 5)
    assert reply.status == 501 and "ledger.enabled" in reply.error
    assert acme.get("/admin/v1/tenants/acme/invoice").status == 501
