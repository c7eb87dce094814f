//! The demo's words.

use std::net::SocketAddr;
use std::path::Path;

use super::ask::Answers;
use super::curl::Line;
use super::publish::Stage;

/// Width of the picture of a sound, characters.
const STRIP_WIDTH: usize = 72;
/// Pairs of sentences that are shown.
const SHOWN_PAIRS: usize = 2;

pub(super) fn opening(server: &str, metrics: SocketAddr, moved: bool, log: &Path) {
    println!("Tenantry runs on {server}; metrics are on http://{metrics}/metrics");
    if moved {
        println!("(the usual ports 8000 and 8002 are taken, so free ones were chosen)");
    }
    println!("its log is {}", log.display());
}

pub(super) fn publishing() {
    println!("\nThe operator's tenant `platform` shares four models; acme and globex bring one of their own.");
    println!("Each is loaded, optimised, warmed up and measured in a worker process before it serves:");
}

pub(super) fn answers(answers: &Answers) {
    heading("What type is this file?", "acme asks its own model `file-type`");
    for answer in &answers.files {
        println!("  {:20} {} ({})", answer.file, answer.description, percent(answer.score));
    }

    heading("Which of these sentences are close?", "globex asks its own model `sentences`");
    for pair in answers.sentences.iter().take(SHOWN_PAIRS) {
        println!("  {:.2}  \"{}\"  and  \"{}\"", pair.closeness, pair.one, pair.other);
    }
    if let Some(last) = answers.sentences.last() {
        println!("  the farthest apart:");
        println!("  {:.2}  \"{}\"  and  \"{}\"", last.closeness, last.one, last.other);
    }

    heading("Is this picture safe to show?", "acme asks the shared model `platform/picture-safety`");
    for answer in &answers.pictures {
        println!("  {:20} {} safe", answer.picture, percent(answer.safe));
    }

    heading("Where is speech in this sound?", "globex asks the shared model `platform/speech`");
    for answer in &answers.sounds {
        println!("  {:20} {:.1} seconds", answer.sound, answer.seconds);
        println!("  {}", strip(&answer.probabilities));
        match answer.speech.as_slice() {
            [] => println!("  no speech"),
            segments => segments.iter().for_each(|(from, to)| println!("  speech from {from:.1} s to {to:.1} s")),
        }
    }

    heading("Is a private model private?", "acme asks for globex's model");
    println!("  {} says: {} {}", answers.private.model, answers.private.status, answers.private.message);
}

pub(super) fn closing(stage: &Stage, lines: &[Line], once: bool) {
    heading("Keys", "what goes after `Authorization: Bearer`");
    for (name, key) in [("acme", &stage.acme.key), ("globex", &stage.globex.key), ("platform", &stage.platform_key)] {
        println!("  {name:9} {key}");
    }
    if once {
        return;
    }
    heading("Try it", "these lines work as they are, in another terminal");
    for line in lines {
        println!("\n# {}\n{}", line.shows, line.command);
    }
    println!("\nThe server runs until Ctrl-C.");
}

fn heading(question: &str, who: &str) {
    println!("\n{question}   ({who})");
}

fn percent(share: f32) -> String {
    format!("{:.1}", share * 100.0).trim_end_matches(".0").to_owned() + " %"
}

/// A sound as a line of characters: `#` where speech is likely, `.` where it is not.
fn strip(probabilities: &[f32]) -> String {
    let per_character = probabilities.len().div_ceil(STRIP_WIDTH).max(1);
    let likely = |frames: &[f32]| frames.iter().sum::<f32>() / frames.len() as f32 >= 0.5;
    probabilities.chunks(per_character).map(|frames| if likely(frames) { '#' } else { '.' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_in_percent() {
        assert_eq!([1.0, 0.6494, 0.0].map(percent), ["100 %", "64.9 %", "0 %"]);
    }

    #[test]
    fn a_sound_fits_the_line() {
        assert_eq!(strip(&[0.1, 0.9, 0.8]), ".##");
        assert_eq!(strip(&[0.9; 1000]).len(), 1000_usize.div_ceil(14));
        assert_eq!(strip(&[]), "");
    }
}
