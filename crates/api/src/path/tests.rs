use super::*;
use crate::openai::OpenAiCall;

fn model<'a>(name: &'a str, version: Option<&'a str>, action: ModelAction) -> Option<V2Path<'a>> {
    Some(V2Path::Model(ModelPath { model: name.into(), version: version.map(Cow::Borrowed), action }))
}

#[test]
fn every_path_of_the_protocol_has_one_reading() {
    use ModelAction::{Config, Generate, GenerateStream, Infer, Load, Metadata, Ready, Unimplemented, Unload};
    let cases = [
        ("/v2", Some(V2Path::Server)),
        ("/v2/", Some(V2Path::Server)),
        ("/v2/health/live", Some(V2Path::Live)),
        ("/v2/health/ready", Some(V2Path::Ready)),
        ("/v2/models", Some(V2Path::Models)),
        ("/v2/openapi.json", Some(V2Path::Document)),
        ("/v2/models/m", model("m", None, Metadata)),
        ("/v2/models/m/ready", model("m", None, Ready)),
        ("/v2/models/m/infer", model("m", None, Infer)),
        ("/v2/models/m/versions/3/infer", model("m", Some("3"), Infer)),
        ("/v2/models/m/versions/best", model("m", Some("best"), Metadata)),
        ("/v2/models/o/m", model("o/m", None, Metadata)),
        ("/v2/models/o/m/infer", model("o/m", None, Infer)),
        ("/v2/models/o/m/versions/3/ready", model("o/m", Some("3"), Ready)),
        ("/v2/models/o%2Fm/infer", model("o/m", None, Infer)),
        ("/v2/models/o%2fm/versions/v%2E1", model("o/m", Some("v.1"), Metadata)),
        // A tenant may be called like a reserved word, a model may not.
        ("/v2/models/infer/m/infer", model("infer/m", None, Infer)),
        ("/v2/models/versions/m", model("versions/m", None, Metadata)),
        ("/v2/models/m/config", model("m", None, Config)),
        ("/v2/models/m/stats", model("m", None, Unimplemented)),
        ("/v2/models/o/m/trace/setting", model("o/m", None, Unimplemented)),
        ("/v2/models/m/generate", model("m", None, Generate)),
        ("/v2/models/o/m/versions/3/generate_stream", model("o/m", Some("3"), GenerateStream)),
        ("/v2/repository/index", Some(V2Path::Index)),
        ("/v2/repository/models/m/load", model("m", None, Load)),
        ("/v2/repository/models/o/m/unload", model("o/m", None, Unload)),
        ("/v2/systemsharedmemory/status", Some(V2Path::Unimplemented)),
    ];
    for (path, expected) in cases {
        assert_eq!(parse(path), expected, "{path}");
    }
}

#[test]
fn other_paths_name_nothing() {
    for path in [
        "",
        "/",
        "/v1",
        "/v22",
        "/v2/health",
        "/v2/health/alive",
        "/v2/health/live/x",
        "/v2/models/",
        "/v2/models//infer",
        "/v2/models/m/",
        "/v2/models/m/infer/",
        "/v2/models/m/versions/3/infer/more",
        "/v2/models/m/versions/",
        "/v2/models/o/m/x",
        "/v2/models/o/m/x/infer",
        "/v2/models/a/b/c/d/e/f/g/h",
        "/v2/repository",
        "/v2/repository/indices",
        "/v2/repository/models/m",
        "/v2/repository/models/m/infer",
        "/v2/models/%zz",
        "/v2/models/%",
        "/v2/models/%ff",
        "/v2/other",
    ] {
        assert_eq!(parse(path), None, "{path}");
    }
}

fn v1<'a>(name: &'a str, version: Option<&'a str>, action: V1Action) -> Option<V1Path<'a>> {
    Some(V1Path::Model(V1ModelPath { model: name.into(), version: version.map(Cow::Borrowed), action }))
}

#[test]
fn every_path_under_v1_has_one_reading() {
    use V1Action::{Metadata, Predict, Refused, Status};
    let openai = |call| Some(V1Path::OpenAi(call));
    let cases = [
        ("/v1/models", openai(OpenAiCall::Models)),
        ("/v1/models/", openai(OpenAiCall::Models)),
        ("/v1/models/m", openai(OpenAiCall::Model("m".into()))),
        ("/v1/models/o/m", openai(OpenAiCall::Model("o/m".into()))),
        ("/v1/models/o%2Fm", openai(OpenAiCall::Model("o/m".into()))),
        ("/v1/embeddings", openai(OpenAiCall::Embeddings)),
        ("/v1/chat/completions", openai(OpenAiCall::Completions)),
        ("/v1/completions", openai(OpenAiCall::Completions)),
        ("/v1/models/m/versions/3", v1("m", Some("3"), Status)),
        ("/v1/models/m/labels/best", v1("m", Some("best"), Status)),
        ("/v1/models/o/m/labels/best/metadata", v1("o/m", Some("best"), Metadata)),
        ("/v1/models/m/metadata", v1("m", None, Metadata)),
        ("/v1/models/m:predict", v1("m", None, Predict)),
        ("/v1/models/o/m:predict", v1("o/m", None, Predict)),
        ("/v1/models/m%3Apredict", v1("m", None, Predict)),
        ("/v1/models/m/versions/3:predict", v1("m", Some("3"), Predict)),
        ("/v1/models/o/m/labels/best:predict", v1("o/m", Some("best"), Predict)),
        ("/v1/models/m:classify", v1("m", None, Refused("classify"))),
        ("/v1/models/m:regress", v1("m", None, Refused("regress"))),
        ("/v1/models/m:explain", v1("m", None, Refused("explain"))),
    ];
    for (path, expected) in cases {
        assert_eq!(parse_v1(path), expected, "{path}");
    }
    for path in [
        "/v1",
        "/v1/other",
        "/v1/embeddings/",
        "/v1/chat",
        "/v1/modelss",
        "/v1/models//",
        "/v1/models/m/",
        "/v1/models/m:other",
        "/v1/models/m:predict:predict",
        "/v1/models/m/metadata:predict",
        "/v1/models/m/versions",
        "/v1/models/m/metadata/more",
        "/v1/models/a/b/c/d/e/f/g",
    ] {
        assert_eq!(parse_v1(path), None, "{path}");
    }
}

#[test]
fn two_segments_after_predictions_are_model_and_version() {
    let predict = |name: &'static str, version: Option<&'static str>| {
        Some(V1ModelPath { model: name.into(), version: version.map(Cow::Borrowed), action: V1Action::Predict })
    };
    let cases = [
        ("/predictions/m", predict("m", None)),
        ("/predictions/m/2", predict("m", Some("2"))),
        ("/predictions/o%2Fm", predict("o/m", None)),
        ("/predictions/o/m/best", predict("o/m", Some("best"))),
        ("/predictions/", None),
        ("/predictions", None),
        ("/predictions/m/", None),
        ("/predictions/a/b/c/d", None),
    ];
    for (path, expected) in cases {
        assert_eq!(parse_predictions(path), expected, "{path}");
    }
}

#[test]
fn the_prefix_of_openais_api_may_be_there() {
    assert_eq!(without_openai_prefix("/openai/v1/models"), Some("/v1/models"));
    assert_eq!(without_openai_prefix("/v1/models"), None);
    assert_eq!(without_openai_prefix("/openai/v2"), None);
}
