//! What the demo works with: the fetched models and their labels, and the things to ask about.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use image::RgbImage;
use tenantry_pipeline::file_type::FileTypes;
use tenantry_pipeline::picture;
use tenantry_pipeline::sentence::Sentences;

use super::{landscape, sound};
use crate::arguments::Demo;

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

/// A file to ask about.
pub(super) struct NamedFile {
    pub(super) name: String,
    pub(super) content: Vec<u8>,
}

/// A picture to judge.
pub(super) struct Picture {
    pub(super) name: String,
    pub(super) pixels: RgbImage,
}

/// A sound to listen to.
pub(super) struct Sound {
    pub(super) name: String,
    pub(super) samples: Vec<f32>,
}

/// Everything the demo works with.
pub(super) struct Material {
    pub(super) models: PathBuf,
    pub(super) file_types: FileTypes,
    pub(super) sentences: Sentences,
    pub(super) files: Vec<NamedFile>,
    pub(super) pictures: Vec<Picture>,
    pub(super) sounds: Vec<Sound>,
}

impl Material {
    /// Finds the models, draws the picture, speaks the sound, reads what the command line names.
    pub(super) fn gather(arguments: &Demo) -> Result<Self> {
        let models = find_models(arguments.models.as_deref())?;
        let read = |name: &str| read_file(&models.join(name));
        let file_types = FileTypes::open(&read("magika/config.min.json")?, &read("magika/content_types_kb.min.json")?)?;
        let sentences = Sentences::open(&read("minilm/tokenizer.json")?)?;
        let mut pictures = vec![Picture { name: "landscape.png".to_owned(), pixels: landscape::draw() }];
        let mut sounds = vec![Sound { name: "phrases.wav".to_owned(), samples: sound::two_phrases() }];
        let mut files = own_files(&pictures, &sounds)?;
        for path in &arguments.files {
            files.push(NamedFile { name: path.display().to_string(), content: read_file(path)? });
        }
        if let Some(path) = &arguments.picture {
            let pixels = picture::decode(&read_file(path)?).with_context(|| path.display().to_string())?;
            pictures.push(Picture { name: path.display().to_string(), pixels });
        }
        if let Some(path) = &arguments.sound {
            let samples = sound::from_wav(&read_file(path)?).with_context(|| path.display().to_string())?;
            sounds.push(Sound { name: path.display().to_string(), samples });
        }
        Ok(Self { models, file_types, sentences, files, pictures, sounds })
    }
}

/// Files the demo always has: some of this program's own, its picture and its sound, and two written here.
fn own_files(pictures: &[Picture], sounds: &[Sound]) -> Result<Vec<NamedFile>> {
    let file = |name: &str, content: Vec<u8>| NamedFile { name: name.to_owned(), content };
    let mut files = vec![
        file("demo.rs", include_bytes!("../demo.rs").to_vec()),
        file("Cargo.toml", include_bytes!("../../Cargo.toml").to_vec()),
        file("totals.py", TOTALS_PY.as_bytes().to_vec()),
        file("page.html", PAGE_HTML.as_bytes().to_vec()),
    ];
    for picture in pictures {
        files.push(file(&picture.name, landscape::to_png(&picture.pixels)?));
    }
    for sound in sounds {
        files.push(file(&sound.name, sound::to_wav(&sound.samples)?));
    }
    Ok(files)
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
