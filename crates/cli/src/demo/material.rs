//! What the demo works with: the fetched models and their labels, and the things to ask about.

use std::path::{Path, PathBuf};

use super::{landscape, sound};
use crate::arguments::Demo;
use anyhow::{Context as _, Result};

/// The largest file that is asked about, bytes.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Where `cargo xtask fetch` puts the models.
const FETCHED: &str = ".cache/models";

/// The sentences compared with each other.
pub(super) const SENTENCES: [&str; 6] = [
    "A cat is sleeping on the sofa.",
    "A kitten naps on the couch.",
    "The invoice is due at the end of the month.",
    "Please pay the bill before the thirtieth.",
    "The rocket reached its orbit after nine minutes.",
    "How do I reset my password?",
];

/// A file to ask about, be it a picture, a sound or any other.
pub(super) struct NamedFile {
    pub(super) name: String,
    pub(super) content: Vec<u8>,
}

/// Everything the demo works with.
pub(super) struct Material {
    pub(super) models: PathBuf,
    pub(super) files: Vec<NamedFile>,
    pub(super) pictures: Vec<NamedFile>,
    pub(super) sounds: Vec<NamedFile>,
}

impl Material {
    /// Finds the models, draws the picture, speaks the sound, reads what the command line names.
    pub(super) fn gather(arguments: &Demo) -> Result<Self> {
        let models = find_models(arguments.models.as_deref())?;
        let named = |path: &PathBuf| -> Result<NamedFile> {
            Ok(NamedFile { name: path.display().to_string(), content: read_file(path)? })
        };
        let picture = NamedFile { name: "landscape.png".to_owned(), content: landscape::to_png(&landscape::draw())? };
        let sound = NamedFile { name: "phrases.wav".to_owned(), content: sound::to_wav(&sound::two_phrases())? };
        let mut files = own_files(&[&picture, &sound]);
        for path in &arguments.files {
            files.push(named(path)?);
        }
        let pictures =
            std::iter::once(Ok(picture)).chain(arguments.picture.iter().map(named)).collect::<Result<_>>()?;
        let sounds = std::iter::once(Ok(sound)).chain(arguments.sound.iter().map(named)).collect::<Result<_>>()?;
        Ok(Self { models, files, pictures, sounds })
    }
}

/// Files the demo always has: some of this program's own, its picture and its sound, and two written here.
fn own_files(media: &[&NamedFile]) -> Vec<NamedFile> {
    let file = |name: &str, content: &[u8]| NamedFile { name: name.to_owned(), content: content.to_owned() };
    let mut files = vec![
        file("demo.rs", include_bytes!("../demo.rs")),
        file("Cargo.toml", include_bytes!("../../Cargo.toml")),
        file("totals.py", TOTALS_PY.as_bytes()),
        file("page.html", PAGE_HTML.as_bytes()),
    ];
    files.extend(media.iter().map(|media| file(&media.name, &media.content)));
    files
}

const TOTALS_PY: &str = "import csv\nimport sys\n\n\ndef totals(path):\n    sums = {}\n    with open(path) as lines:\n        \
for row in csv.DictReader(lines):\n            name, amount = row[\"name\"], float(row[\"amount\"])\n            \
sums[name] = sums.get(name, 0.0) + amount\n    return sums\n\n\nif __name__ == \"__main__\":\n    \
for name, amount in sorted(totals(sys.argv[1]).items()):\n        print(f\"{name:20} {amount:10.2f}\")\n";

const PAGE_HTML: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n  <meta charset=\"utf-8\">\n  <title>Opening hours\
</title>\n</head>\n<body>\n  <h1>Opening hours</h1>\n  <ul>\n    <li>Monday to Friday: 9 to 17</li>\n    \
<li>Saturday: 10 to 14</li>\n  </ul>\n  <p>Closed on <em>holidays</em>.</p>\n</body>\n</html>\n";

/// The folder with the models: as named, else `.cache/models` here or in the nearest parent that has one.
fn find_models(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let here = std::env::current_dir()?;
    let found = here.ancestors().map(|folder| folder.join(FETCHED)).find(|folder| folder.is_dir());
    found.context(
        "the demo's models are not here\nhint: in the repository `make demo` or `cargo xtask fetch` brings them; \
         elsewhere name their folder with --models",
    )
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;

    let mut content = Vec::new();
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(MAX_FILE_BYTES).read_to_end(&mut content).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(content)
}
