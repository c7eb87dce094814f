use super::*;

fn model<'a>(name: &'a str, version: Option<&'a str>, action: ModelAction) -> Option<V2Path<'a>> {
    Some(V2Path::Model(ModelPath { model: name.into(), version: version.map(Cow::Borrowed), action }))
}

#[test]
fn every_path_of_the_protocol_has_one_reading() {
    use ModelAction::{Infer, Metadata, Ready, Unimplemented};
    let cases = [
        ("/v2", Some(V2Path::Server)),
        ("/v2/", Some(V2Path::Server)),
        ("/v2/health/live", Some(V2Path::Live)),
        ("/v2/health/ready", Some(V2Path::Ready)),
        ("/v2/models", Some(V2Path::Models)),
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
        ("/v2/models/m/config", model("m", None, Unimplemented)),
        ("/v2/models/o/m/trace/setting", model("o/m", None, Unimplemented)),
        ("/v2/models/m/generate_stream", model("m", None, Unimplemented)),
        ("/v2/repository/index", Some(V2Path::Unimplemented)),
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
        "/v2/models/%zz",
        "/v2/models/%",
        "/v2/models/%ff",
        "/v2/other",
    ] {
        assert_eq!(parse(path), None, "{path}");
    }
}
