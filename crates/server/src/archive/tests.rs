use std::convert::Infallible;
use std::io::Write;

use proptest::prelude::*;
use tar::{Builder, Header};

use super::*;

const LIMITS: ArchiveLimits = ArchiveLimits { max_files: 8, max_bytes: 10_000 };

type Files = Vec<(String, Vec<u8>)>;

fn unpack(archive: &[u8]) -> Result<Files, ArchiveError<Infallible>> {
    read(archive, LIMITS, |_, bytes, content| {
        let mut data = Vec::new();
        // An error here is reported by `read` itself.
        let _ = content.read_to_end(&mut data);
        assert!(data.len() as u64 <= bytes);
        Ok(data)
    })
}

/// An entry with any path, also one the crate's own writer would refuse.
fn entry(builder: &mut Builder<Vec<u8>>, kind: EntryType, path: &[u8], data: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    let name = &mut header.as_old_mut().name;
    let short = path.len().min(name.len());
    name[..short].copy_from_slice(&path[..short]);
    header.set_cksum();
    builder.append(&header, data).unwrap();
}

fn archive(entries: &[(EntryType, &[u8], &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, path, data) in entries {
        entry(&mut builder, *kind, path, data);
    }
    builder.into_inner().unwrap()
}

fn files(entries: &[(&str, &str)]) -> Vec<u8> {
    let entries: Vec<_> =
        entries.iter().map(|(path, data)| (EntryType::Regular, path.as_bytes(), data.as_bytes())).collect();
    archive(&entries)
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn plain_and_gzipped_archives_give_the_model_first() {
    let tar = archive(&[
        (EntryType::Directory, b"./", b""),
        (EntryType::Regular, b"./labels.txt", b"cat\n"),
        (EntryType::Directory, b"./weights/", b""),
        (EntryType::Regular, b"./weights/part.bin", b"0123"),
        (EntryType::Regular, b"./net.onnx", b"graph"),
    ]);
    let expected: Vec<(String, Vec<u8>)> =
        [("net.onnx", "graph"), ("weights/part.bin", "0123"), ("labels.txt", "cat\n")]
            .map(|(name, data)| (name.to_owned(), data.as_bytes().to_vec()))
            .into();
    assert_eq!(unpack(&tar).unwrap(), expected);
    assert_eq!(unpack(&gzip(&tar)).unwrap(), expected);
}

#[test]
fn the_model_must_be_clear() {
    let model = |entries: &[(&str, &str)]| unpack(&files(entries)).map(|files| files[0].0.clone());
    assert_eq!(model(&[("a.onnx", ""), ("model.onnx", "")]).unwrap(), "model.onnx");
    assert_eq!(model(&[("x/other.onnx", ""), ("a.onnx", "")]).unwrap(), "a.onnx");
    assert!(matches!(model(&[("a.onnx", ""), ("b.onnx", "")]), Err(ArchiveError::NoModel)));
    assert!(matches!(model(&[("x/model.onnx", "")]), Err(ArchiveError::NoModel)));
    assert!(matches!(model(&[]), Err(ArchiveError::NoModel)));
}

#[test]
fn links_and_devices_are_refused() {
    for (kind, word) in [
        (EntryType::Symlink, "symbolic link"),
        (EntryType::Link, "hard link"),
        (EntryType::Char, "device"),
        (EntryType::Fifo, "named pipe"),
        (EntryType::GNUSparse, "sparse"),
        (EntryType::new(b'V'), "special"),
    ] {
        let error = unpack(&archive(&[(EntryType::Regular, b"model.onnx", b"x"), (kind, b"evil", b"")])).unwrap_err();
        assert!(matches!(error, ArchiveError::Kind { .. }), "{error}");
        assert!(error.to_string().contains(word) && error.to_string().contains("`evil`"), "{error}");
    }
}

#[test]
fn names_that_leave_the_version_are_refused() {
    for path in ["../up", "a/../../b", "/etc/passwd", "..", "a//b", "a/./b", "c:\\x", "a\nb", "\u{7f}"] {
        let error = unpack(&files(&[("model.onnx", "x"), (path, "x")])).unwrap_err();
        assert!(matches!(error, ArchiveError::Name(_)), "{path}: {error}");
        assert!(!error.to_string().contains('\n'));
    }
    let not_text = archive(&[(EntryType::Regular, b"\xff\xfe", b"x")]);
    assert!(matches!(unpack(&not_text), Err(ArchiveError::Name(_))));
    let folder = archive(&[(EntryType::Directory, b"../out/", b"")]);
    assert!(matches!(unpack(&folder), Err(ArchiveError::Name(_))));
}

#[test]
fn duplicates_and_too_much_are_refused() {
    assert!(matches!(unpack(&files(&[("a", "1"), ("./a", "2")])), Err(ArchiveError::Duplicate(_))));
    let names: Vec<String> = (0..9).map(|number| format!("f{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    assert!(matches!(unpack(&files(&many)), Err(ArchiveError::TooManyFiles(8))));
    let large = "x".repeat(6_000);
    assert!(matches!(unpack(&files(&[("a", &large), ("b", &large)])), Err(ArchiveError::TooLarge(10_000))));
    let mut folders = Builder::new(Vec::new());
    for _ in 0..=MAX_ENTRIES {
        entry(&mut folders, EntryType::Directory, b"d/", b"");
    }
    assert!(matches!(unpack(&gzip(&folders.into_inner().unwrap())), Err(ArchiveError::TooManyFiles(8))));
}

#[test]
fn long_names_are_read_and_bounded() {
    let long = format!("{}/model-data.bin", "d".repeat(120));
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(1);
    header.set_entry_type(EntryType::Regular);
    builder.append_data(&mut header, &long, &b"x"[..]).unwrap();
    entry(&mut builder, EntryType::Regular, b"model.onnx", b"g");
    let archive = builder.into_inner().unwrap();
    assert_eq!(unpack(&archive).unwrap()[1].0, long);

    let mut builder = Builder::new(Vec::new());
    builder.append_pax_extensions([("path", "../../outside".as_bytes())]).unwrap();
    entry(&mut builder, EntryType::Regular, b"model.onnx", b"g");
    assert!(matches!(unpack(&builder.into_inner().unwrap()), Err(ArchiveError::Name(_))));

    let mut builder = Builder::new(Vec::new());
    builder.append_pax_extensions([("size", "1".as_bytes())]).unwrap();
    entry(&mut builder, EntryType::Regular, b"model.onnx", b"g");
    assert!(matches!(unpack(&builder.into_inner().unwrap()), Err(ArchiveError::Unreadable(_))));

    let bomb = vec![b'a'; MAX_EXTENDED_HEADER_BYTES as usize + 1];
    let mut builder = Builder::new(Vec::new());
    entry(&mut builder, EntryType::GNULongName, b"././@LongLink", &bomb);
    assert!(matches!(unpack(&gzip(&builder.into_inner().unwrap())), Err(ArchiveError::Unreadable(_))));
}

#[test]
fn an_archive_cut_short_is_not_taken_for_whole() {
    let whole = files(&[("model.onnx", &"g".repeat(2_000))]);
    for length in [0, 100, 512, 513, 600, 1_023, 2_000, 2_511, 2_560] {
        assert!(matches!(unpack(&whole[..length]), Err(ArchiveError::Unreadable(_))), "{length}");
    }
    let packed = gzip(&whole);
    for length in 3..packed.len() {
        assert!(unpack(&packed[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_file_name_keeps_its_last_component_only() {
    assert_eq!(plain_name("C:\\models\\net.onnx"), Some("net.onnx"));
    assert_eq!(plain_name("/tmp/net.onnx"), Some("net.onnx"));
    for bad in ["", "/", "..", "a/..", "a\n.onnx"] {
        assert_eq!(plain_name(bad), None, "{bad:?}");
    }
    assert!(is_archive("A.TAR.GZ") && is_archive("a.tgz") && is_archive("a.tar") && !is_archive("tar"));
}

fn component() -> impl Strategy<Value = String> {
    prop_oneof![Just("..".to_owned()), Just(".".to_owned()), Just(String::new()), "[a-c.]{1,4}", ".{1,3}"]
}

proptest! {
    #[test]
    fn whatever_the_paths_only_names_inside_the_version_come_out(
        paths in prop::collection::vec((any::<bool>(), prop::collection::vec(component(), 1..5), any::<u8>()), 1..6),
    ) {
        let mut builder = Builder::new(Vec::new());
        for (absolute, parts, kind) in &paths {
            let path = format!("{}{}", if *absolute { "/" } else { "" }, parts.join("/"));
            let kind = if *kind < 200 { EntryType::Regular } else { EntryType::new(*kind) };
            entry(&mut builder, kind, path.as_bytes(), b"data");
        }
        entry(&mut builder, EntryType::Regular, b"model.onnx", b"g");
        if let Ok(files) = unpack(&builder.into_inner().unwrap()) {
            prop_assert_eq!(files[0].0.as_str(), "model.onnx");
            for (name, _) in files {
                let path = std::path::Path::new(&name);
                let normal = |part| matches!(part, std::path::Component::Normal(_));
                prop_assert!(path.is_relative() && path.components().all(normal), "{}", name);
                prop_assert!(!name.contains(char::is_control) && !name.contains('\\'));
            }
        }
    }

    #[test]
    fn whatever_the_bytes_reading_ends_with_an_answer(
        mut bytes in prop::collection::vec(any::<u8>(), 0..4096),
        seed in 0_usize..3,
    ) {
        // Random bytes alone rarely get past the first checksum, so some runs damage a good archive instead.
        if seed > 0 {
            let mut good = files(&[("model.onnx", "graph"), ("b", "data")]);
            for (position, byte) in bytes.chunks_exact(3).map(|chunk| (usize::from(chunk[0]) * 256 + usize::from(chunk[1]), chunk[2])).take(seed * 2) {
                let length = good.len();
                good[position % length] = byte;
            }
            bytes = good;
        }
        let _ = unpack(&bytes);
        let _ = unpack(&gzip(&bytes));
    }
}
