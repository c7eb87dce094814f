//! The gRPC edge: what its clients' libraries cannot send, and what must hold whatever comes.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tenantry_oip::grpc::proto::{
    ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse,
    ModelStatisticsRequest, ModelStatisticsResponse, ModelStreamInferResponse, ServerLiveRequest, ServerReadyRequest,
    ServerReadyResponse,
};
use tenantry_types::testing::onnx;

use crate::support::Running;
use crate::support::grpc::{Client, framed, next, ones};

async fn with_model() -> (Running, String) {
    let running = Running::start().await;
    let key = push(&running).await;
    (running, key)
}

/// The model `y = 2x` of a tenant `acme`; returns the key of an invoker.
async fn push(running: &Running) -> String {
    let (admin, invoker) = running.tenant("acme").await;
    let version = running.push("acme", "double", &admin, &onnx::matmul16()).await;
    assert_eq!(version["state"], "ready", "{version}");
    invoker
}

fn raw(response: &ModelInferResponse) -> Vec<f32> {
    super::floats(&response.raw_output_contents[0])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_answers_in_the_form_it_was_asked_in() {
    let (running, key) = with_model().await;
    let mut client = running.grpc().await;
    let ended = client.call("ModelInfer", Some(&key), &[("x-tenantry-explain", "1")], &ones("double", true)).await;
    assert!(ended.text("x-request-id").starts_with("req_"), "{ended:?}");
    assert!(ended.text("x-tenantry-timing").contains("\"device_us\""), "{ended:?}");
    let response: ModelInferResponse = ended.message();
    assert_eq!((response.model_name.as_str(), response.model_version.as_str()), ("double", "1"));
    assert_eq!(response.id, "mine");
    assert_eq!(raw(&response), [2.0; 16]);
    let response: ModelInferResponse =
        client.call("ModelInfer", Some(&key), &[], &ones("acme/double", false)).await.message();
    assert!(response.raw_output_contents.is_empty());
    assert_eq!(response.outputs[0].contents.as_ref().unwrap().fp32_contents, [2.0; 16]);
    assert_eq!((response.model_name.as_str(), response.outputs[0].shape.as_slice()), ("acme/double", &[1, 16][..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_described_and_counted() {
    let (running, key) = with_model().await;
    let mut client = running.grpc().await;
    let name = || "double".to_owned();
    let request = ModelMetadataRequest { name: name(), version: String::new() };
    let metadata: ModelMetadataResponse = client.call("ModelMetadata", Some(&key), &[], &request).await.message();
    assert_eq!(
        (metadata.versions.as_slice(), metadata.inputs[0].shape.as_slice()),
        (&["1".to_owned()][..], &[-1, 16][..])
    );
    let request = ModelReadyRequest { name: name(), version: "1".to_owned() };
    let ready: ModelReadyResponse = client.call("ModelReady", Some(&key), &[], &request).await.message();
    assert!(ready.ready);
    client.call("ModelInfer", Some(&key), &[], &ones("double", true)).await.message::<ModelInferResponse>();
    let request = ModelStatisticsRequest { name: name(), version: String::new() };
    let counted: ModelStatisticsResponse = client.call("ModelStatistics", Some(&key), &[], &request).await.message();
    let [one] = counted.model_stats.as_slice() else { panic!("{counted:?}") };
    assert_eq!((one.inference_count, one.execution_count), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_probes_need_no_key_and_there_is_one_text_for_all_others() {
    let running = Running::start().await;
    let mut client = running.grpc().await;
    let ready: ServerReadyResponse = client.call("ServerReady", None, &[], &ServerReadyRequest {}).await.message();
    assert!(ready.ready);
    let methods = ["ServerMetadata", "ModelReady", "ModelMetadata", "ModelInfer", "ModelStreamInfer", "ModelConfig"];
    let mut texts = Vec::new();
    for method in methods.into_iter().chain(["ModelStatistics", "RepositoryIndex", "RepositoryModelLoad", "Nonsense"]) {
        for key in [None, Some("tnty_nonsense")] {
            // Its message is never sent: a refusal does not wait for it.
            let calling = client.begin(method, key, &[]).await;
            let ended = calling.ended().await;
            assert_eq!(ended.refusal().0, "16", "{method} {ended:?}");
            texts.push(ended.text("grpc-message").to_owned());
        }
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_server_lacks_is_unimplemented_and_other_clients_are_told_what_they_reached() {
    let running = Running::start().await;
    let key = running.admin_key.clone();
    let mut client = running.grpc().await;
    for method in ["SystemSharedMemoryStatus", "CudaSharedMemoryRegister", "TraceSetting", "LogSettings", "Nonsense"] {
        let ended = client.call(method, Some(&key), &[], &ServerLiveRequest {}).await;
        assert_eq!(ended.refusal().0, "12", "{method} {ended:?}");
    }
    let ended = client.call("/some.other.Service/Call", Some(&key), &[], &ServerLiveRequest {}).await;
    assert_eq!(ended.refusal().0, "12", "{ended:?}");
    let plain = http::Request::get("http://test/v2").body(()).unwrap();
    let (answer, _) = client.requests.send_request(plain, true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 415);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_is_refused_by_its_announcement() {
    let running = Running::start_with(|http| http.max_body_bytes = 10_000).await;
    let key = push(&running).await;
    let mut client = running.grpc().await;
    let mut calling = client.begin("ModelInfer", Some(&key), &[]).await;
    // Nothing but the announcement is ever sent.
    calling.send.send_data(Bytes::from_static(&[0, 0, 0, 0x27, 0x11]), false).unwrap();
    let ended = calling.ended().await;
    let (status, code, text) = ended.refusal();
    assert_eq!((status, code, ended.text("error-reason")), ("8", "too_large", "body_bytes"));
    assert!(text.contains("10000"), "{text}");
    // A call that is no inference takes less.
    let mut calling = client.begin("ModelReady", Some(&key), &[]).await;
    calling.send.send_data(Bytes::from_static(&[0, 0, 1, 0, 1]), false).unwrap();
    assert_eq!(calling.ended().await.refusal().1, "too_large");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_may_come_byte_by_byte_but_not_stall() {
    let running = Running::start_with(|http| http.body_timeout = Duration::from_millis(50)).await;
    let key = push(&running).await;
    let mut client = running.grpc().await;
    let mut calling = client.begin("ModelInfer", Some(&key), &[]).await;
    let message = framed(&ones("double", true).encode_to_vec());
    for at in 0..message.len() {
        calling.send.send_data(message.slice(at..at + 1), at + 1 == message.len()).unwrap();
    }
    let response: ModelInferResponse = calling.ended().await.message();
    assert_eq!(raw(&response), [2.0; 16]);
    let mut calling = client.begin("ModelInfer", Some(&key), &[]).await;
    calling.send.send_data(message.slice(..40), false).unwrap();
    let ended = calling.ended().await;
    assert_eq!(ended.refusal().1, "deadline_exceeded", "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_not_messages_are_refused() {
    let (running, key) = with_model().await;
    let mut client = running.grpc().await;
    let cases: [(&[u8], &str); 6] = [
        (b"", "3"),
        (&[0, 0], "3"),
        (&[0, 0, 0, 0, 9, 1], "3"),
        (&[7, 0, 0, 0, 0], "3"),
        (&[0, 0, 0, 0, 2, 0x0a, 0xff], "3"),
        // Compressed, but nobody said how.
        (&[1, 0, 0, 0, 0], "12"),
    ];
    for (body, status) in cases {
        let mut calling = client.begin("ModelInfer", Some(&key), &[]).await;
        calling.send.send_data(Bytes::copy_from_slice(body), true).unwrap();
        let ended = calling.ended().await;
        assert_eq!(ended.refusal().0, status, "{body:?} {ended:?}");
    }
    // Two messages in a call that takes one.
    let mut calling = client.begin("ModelInfer", Some(&key), &[]).await;
    calling.message(&ones("double", true), false);
    calling.message(&ones("double", true), true);
    assert_eq!(calling.ended().await.refusal().0, "3");
    for wrong in ["soon", "1", "1s", "123456789S"] {
        let ended = client.call("ModelInfer", Some(&key), &[("grpc-timeout", wrong)], &ones("double", true)).await;
        assert!(ended.refusal().2.contains("grpc-timeout"), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_has_passed_is_told_and_the_shorter_of_two_counts() {
    let (running, key) = with_model().await;
    let mut client = running.grpc().await;
    let ended = client.call("ModelInfer", Some(&key), &[("grpc-timeout", "1n")], &ones("double", true)).await;
    assert_eq!(ended.refusal().1, "deadline_exceeded", "{ended:?}");
    let mut request = ones("double", true);
    let choice = tenantry_oip::grpc::proto::infer_parameter::ParameterChoice::Int64Param(1);
    let parameter = tenantry_oip::grpc::proto::InferParameter { parameter_choice: Some(choice) };
    request.parameters.insert("timeout".to_owned(), parameter);
    let ended = client.call("ModelInfer", Some(&key), &[("grpc-timeout", "1H")], &request).await;
    assert_eq!(ended.refusal().1, "deadline_exceeded", "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_answers_in_order_and_goes_on_after_errors() {
    let (running, key) = with_model().await;
    let mut client = running.grpc().await;
    let mut calling = client.begin("ModelStreamInfer", Some(&key), &[]).await;
    for (model, id) in [("double", "1"), ("nothing", "2"), ("double", "3")] {
        let mut request = ones(model, true);
        request.id = id.to_owned();
        calling.message(&request, false);
    }
    // Too large by its announcement: passed over, answered in its turn.
    let limit = 64_u32 << 20;
    calling.send.send_data([&[0][..], &(limit + 1).to_be_bytes()].concat().into(), false).unwrap();
    let (_, mut body, _send) = calling.answer().await;
    let mut received = Vec::new();
    let mut answers = Vec::new();
    while answers.len() < 4 {
        received.extend_from_slice(&next(&mut body).await.unwrap());
        while let Some((prefix, rest)) = received.split_first_chunk::<5>() {
            let length = u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize;
            let Some(message) = rest.get(..length) else { break };
            answers.push(ModelStreamInferResponse::decode(message).unwrap());
            received.drain(..5 + length);
        }
    }
    let shown: Vec<_> = answers
        .iter()
        .map(|answer| (answer.infer_response.as_ref().unwrap().id.as_str(), answer.error_message.as_str()))
        .collect();
    assert_eq!(shown[0], ("1", ""));
    assert_eq!(shown[1], ("2", "model `nothing` does not exist or you may not use it"));
    assert_eq!(shown[2], ("3", ""));
    assert!(shown[3].1.contains("larger than"), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_asks_for_statuses_ends_with_the_first_error() {
    let (running, key) = with_model().await;
    let mut client = running.grpc().await;
    let mut calling = client.begin("ModelStreamInfer", Some(&key), &[("triton_grpc_error", "true")]).await;
    calling.message(&ones("double", true), false);
    calling.message(&ones("nothing", true), false);
    let ended = calling.ended().await;
    assert_eq!((ended.status(), ended.text("error-code")), ("5", "not_found"));
    let answer = ModelStreamInferResponse::decode(&ended.body[5..]).unwrap();
    assert_eq!(raw(&answer.infer_response.unwrap()), [2.0; 16]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_revoked_ends_the_streams_it_began() {
    let running = Running::start().await;
    let (admin, _) = running.tenant("acme").await;
    let version = running.push("acme", "double", &admin, &onnx::matmul16()).await;
    assert_eq!(version["state"], "ready", "{version}");
    let new = serde_json::json!({ "role": "invoker", "label": "short" });
    let created = running.post("/admin/v1/tenants/acme/keys", &admin, &new).await.json();
    let (key, id) = (created["key"].as_str().unwrap(), created["id"].as_str().unwrap());
    let mut client = running.grpc().await;
    let mut calling = client.begin("ModelStreamInfer", Some(key), &[]).await;
    calling.message(&ones("double", true), false);
    let (_, mut body, mut send) = calling.answer().await;
    assert!(next(&mut body).await.is_some());
    let revoked = running.send("DELETE", &format!("/admin/v1/tenants/acme/keys/{id}"), Some(&admin), &[], b"").await;
    assert!(revoked.status < 300, "{revoked:?}");
    send.send_data(framed(&ones("double", true).encode_to_vec()), false).unwrap();
    assert!(next(&mut body).await.is_none());
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "16");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_resets_ends_its_own_connection_and_nobody_elses() {
    let (running, key) = with_model().await;
    let mut other = running.grpc().await;
    let Client { requests, connection } = running.grpc().await;
    for _ in 0..5_000 {
        // Until the server has had enough.
        let Ok(mut requests) = requests.clone().ready().await else { break };
        let request = http::Request::post("http://test/inference.GRPCInferenceService/ModelInfer");
        let request = request.header("content-type", "application/grpc").body(()).unwrap();
        let Ok((_, mut send)) = requests.send_request(request, false) else { break };
        send.send_reset(h2::Reason::CANCEL);
    }
    drop(requests);
    let ended = tokio::time::timeout(crate::support::PATIENCE, connection).await.expect("the end").unwrap();
    let ended = ended.expect_err("the server ends it");
    // What still comes after the server's last word is answered with a reset, which may overtake that word.
    assert!(ended.is_io() || ended.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM), "{ended:?}");
    other.call("ModelInfer", Some(&key), &[], &ones("double", true)).await.message::<ModelInferResponse>();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_call_is_closed() {
    use tokio::io::AsyncReadExt as _;
    let running = Running::start_with(|http| http.header_timeout = Duration::from_millis(50)).await;
    let mut silent = tokio::net::TcpStream::connect(running.grpc_address).await.unwrap();
    let mut rest = Vec::new();
    let read = tokio::time::timeout(crate::support::PATIENCE, silent.read_to_end(&mut rest)).await;
    // A reset is an end too.
    let _ = read.expect("the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_ends_what_waits_and_says_so() {
    let (mut running, key) = with_model().await;
    let mut client = running.grpc().await;
    let mut calling = client.begin("ModelStreamInfer", Some(&key), &[]).await;
    calling.message(&ones("double", true), false);
    let (_, mut stream, _send) = calling.answer().await;
    assert!(next(&mut stream).await.is_some());
    let mut watch = client.begin("/grpc.health.v1.Health/Watch", None, &[]).await;
    watch.send.send_data(framed(&[]), true).unwrap();
    let (_, mut health, _) = watch.answer().await;
    // SERVING.
    assert_eq!(next(&mut health).await.unwrap(), framed(&[8, 1]));

    running.begin_drain();
    // NOT_SERVING, then the end.
    assert_eq!(next(&mut health).await.unwrap(), framed(&[8, 2]));
    assert!(next(&mut health).await.is_none());
    assert!(next(&mut stream).await.is_none());
    let trailers = stream.trailers().await.unwrap().unwrap();
    assert_eq!(trailers["error-code"], "unavailable");
    running.drained().await;
}
