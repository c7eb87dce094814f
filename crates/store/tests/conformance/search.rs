//! Searching an owner's models.

use tenantry_store::{Model, ModelSearch, NewModel, NewVersion, ReadError, Store};
use tenantry_types::TenantId;

use crate::support::{Shared, file, model, pairs, registration, tenant, upload};

async fn find(store: &Store, owner: TenantId, text: &str) -> Vec<String> {
    let search = ModelSearch { text: text.to_owned(), ..ModelSearch::default() };
    names(store.search_models(owner, &search).await.unwrap())
}

fn names(models: Vec<Model>) -> Vec<String> {
    models.into_iter().map(|model| model.name.to_string()).collect()
}

pub(crate) async fn finds_words_whatever_their_case_and_place(backend: Shared) {
    let (_place, store) = backend.store().await;
    let (acme, globex) = (tenant(&store, "acme").await, tenant(&store, "globex").await);
    let new = NewModel {
        description: "Sentence EMBEDDINGS für Ähnlichkeit, 100% local".to_owned(),
        framework: "PyTorch".to_owned(),
        tags: pairs(&[("Language", "English")]),
        dependencies: vec!["dataset:MS_MARCO".to_owned()],
        ..NewModel::default()
    };
    let minilm = store.create_model(acme.id, &"minilm".parse().unwrap(), new, 1).await.unwrap();
    model(&store, acme.id, "other").await;
    model(&store, globex.id, "minilm").await;
    let artefact = upload(&store, acme.id, b"x").await;
    let new = NewVersion {
        files: vec![file("tokenizer.json", artefact)],
        description: "distilled".to_owned(),
        tags: pairs(&[("author", "Grace")]),
        quality: [("spearman".to_owned(), 0.8)].into(),
        ..NewVersion::default()
    };
    let version = store.create_version(minilm.id, new, 2).await.unwrap();
    assert_eq!(find(&store, acme.id, "attention_mask").await, [""; 0]);
    store.finish_version(version.id, &registration("attention_mask"), None).await.unwrap();

    let everywhere = [
        "minilm",
        "MINI",
        "embeddings",
        "ähnlich",
        "pytorch",
        "language",
        "english",
        "ms_marco",
        "100%",
        "distilled",
        "grace",
        "spearman",
        "tokenizer.json",
        "attention_mask",
        "  sentence   grace attention pytorch ",
    ];
    for text in everywhere {
        assert_eq!(find(&store, acme.id, text).await, ["minilm"], "{text:?}");
    }
    for text in ["sentence missing", "ms%marco", "m_nilm", "10_%", "'", "\\", "!"] {
        assert_eq!(find(&store, acme.id, text).await, [""; 0], "{text:?}");
    }
    assert_eq!(find(&store, acme.id, "").await, ["minilm", "other"]);
    assert_eq!(find(&store, globex.id, "").await, ["minilm"]);
    assert_eq!(find(&store, globex.id, "embeddings").await, [""; 0]);
    for text in ["a b c d e".to_owned(), "x".repeat(257)] {
        let search = ModelSearch { text, ..ModelSearch::default() };
        assert!(matches!(store.search_models(acme.id, &search).await, Err(ReadError::SearchTooLong { .. })));
    }
}

pub(crate) async fn finds_tags_exactly_and_goes_on_page_by_page(backend: Shared) {
    let (_place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    for (now_ms, name, tags) in [
        (1, "z", pairs(&[("task", "Detect"), ("x", "1")])),
        (2, "y", pairs(&[("task", "detect")])),
        (3, "b", pairs(&[("task", "detect"), ("x", "2")])),
        (4, "a", pairs(&[("x", "detect")])),
        (5, "c", pairs(&[("task", "detect")])),
    ] {
        let new = NewModel { tags, ..NewModel::default() };
        store.create_model(acme.id, &name.parse().unwrap(), new, now_ms).await.unwrap();
    }
    let tag = Some(("task".to_owned(), "detect".to_owned()));
    let search = ModelSearch { tag: tag.clone(), ..ModelSearch::default() };
    let all = store.search_models(acme.id, &search).await.unwrap();
    assert_eq!(names(all.clone()), ["y", "b", "c"]);
    assert_eq!(all[1].tags, pairs(&[("task", "detect"), ("x", "2")]));

    let mut pages = Vec::new();
    let mut after = None;
    loop {
        let search = ModelSearch { tag: tag.clone(), after, limit: 2, ..ModelSearch::default() };
        let page = store.search_models(acme.id, &search).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        pages.push(page.len());
    }
    assert_eq!(pages, [2, 1]);
}
