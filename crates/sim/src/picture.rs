//! A picture of per-tenant service over time.

use std::fmt::Write as _;
use std::time::Duration;

/// Tenants with a colour of their own; the rest is one area.
const SHOWN: usize = 8;
/// Colours that stay apart for people who see few of them (after Okabe and Ito), the last for everybody else.
const COLOURS: [&str; SHOWN + 1] =
    ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#7A5195", "#B8B8B8"];
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 220.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 52.0;

/// What is drawn of a tenant.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// Device time in each bin, nanoseconds.
    pub service_ns: Vec<u64>,
}

/// Stacked areas: how many slots each tenant held on average, over time. `slots`: how many there are.
pub fn service(title: &str, series: &[Series], lasted: Duration, slots: usize) -> String {
    let bins = series.iter().map(|one| one.service_ns.len()).max().unwrap_or(0);
    let mut order: Vec<&Series> = series.iter().collect();
    order.sort_by_key(|one| std::cmp::Reverse(one.service_ns.iter().sum::<u64>()));
    let rest = order.split_off(order.len().min(SHOWN));
    let bin_ns = (lasted.as_nanos() as f64 / bins.max(1) as f64).max(1.0);
    let at = |one: &Series, bin: usize| one.service_ns.get(bin).copied().unwrap_or(0) as f64 / bin_ns;
    let mut areas: Vec<(String, Vec<f64>)> =
        order.iter().map(|one| (one.name.clone(), (0..bins).map(|bin| at(one, bin)).collect())).collect();
    if !rest.is_empty() {
        let sum = (0..bins).map(|bin| rest.iter().map(|one| at(one, bin)).sum()).collect();
        areas.push((format!("{} others", rest.len()), sum));
    }
    let highest = (0..bins).map(|bin| areas.iter().map(|(_, area)| area.get(bin).unwrap_or(&0.0)).sum::<f64>());
    let top = highest.fold(slots as f64, f64::max) * 1.05;

    let x = |bin: usize| LEFT + (WIDTH - LEFT - RIGHT) * bin as f64 / bins.saturating_sub(1).max(1) as f64;
    let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top.max(1e-9);
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"17\" font-weight=\"600\">{}</text>\n\
         <text x=\"{LEFT}\" y=\"46\" fill=\"#555\">Slots held by each tenant, on average over each moment (device time per time)</text>",
        escape(title)
    );
    axes(&mut svg, lasted, top, slots, &y);
    let mut below = vec![0.0; bins];
    for ((_, area), colour) in areas.iter().zip(COLOURS) {
        let above: Vec<f64> = below.iter().zip(area).map(|(below, more)| below + more).collect();
        let mut path = String::new();
        for (bin, value) in above.iter().enumerate() {
            let _ = write!(path, "{}{:.1} {:.1}", if bin == 0 { 'M' } else { 'L' }, x(bin), y(*value));
        }
        for (bin, value) in below.iter().enumerate().rev() {
            let _ = write!(path, "L{:.1} {:.1}", x(bin), y(*value));
        }
        let _ = writeln!(svg, "<path d=\"{path}Z\" fill=\"{colour}\" fill-opacity=\"0.9\"/>");
        below = above;
    }
    let all = y(slots as f64);
    let end = WIDTH - RIGHT;
    let _ = writeln!(
        svg,
        "<line x1=\"{LEFT}\" y1=\"{all:.1}\" x2=\"{end}\" y2=\"{all:.1}\" stroke=\"#222\" stroke-dasharray=\"5 4\"/>\n\
         <text x=\"{end}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#222\">all slots</text>",
        all - 5.0
    );
    // The legend stands in the order of the areas: the topmost first.
    for (row, ((name, area), colour)) in areas.iter().zip(COLOURS).rev().enumerate() {
        let line = TOP + 18.0 + 22.0 * row as f64;
        let mean = area.iter().sum::<f64>() / bins.max(1) as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{}\" y=\"{:.1}\" width=\"13\" height=\"13\" fill=\"{colour}\"/><text x=\"{}\" y=\"{line:.1}\">{} ({mean:.2})</text>",
            WIDTH - RIGHT + 18.0,
            line - 11.0,
            WIDTH - RIGHT + 38.0,
            escape(&shorten(name))
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn axes(svg: &mut String, lasted: Duration, top: f64, slots: usize, y: &dyn Fn(f64) -> f64) {
    let (bottom, end) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    let step = (slots as f64 / 4.0).max(0.25);
    let mut value = 0.0;
    while value <= top {
        let line = y(value);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{line:.1}\" x2=\"{end}\" y2=\"{line:.1}\" stroke=\"#e4e4e4\"/>\n\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{value:.2}</text>",
            LEFT - 8.0,
            line + 4.0
        );
        value += step;
    }
    for part in 0..=5_u32 {
        let at = LEFT + (end - LEFT) * f64::from(part) / 5.0;
        let seconds = lasted.as_secs_f64() * f64::from(part) / 5.0;
        let digits = usize::from(lasted.as_secs_f64() < 50.0);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" y1=\"{bottom}\" x2=\"{at:.1}\" y2=\"{:.1}\" stroke=\"#555\"/>\n\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{seconds:.digits$} s</text>",
            bottom + 5.0,
            bottom + 21.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">time since the beginning</text>",
        (LEFT + end) / 2.0,
        HEIGHT - 10.0
    );
}

fn shorten(name: &str) -> String {
    const MOST: usize = 20;
    if name.chars().count() <= MOST {
        return name.to_owned();
    }
    name.chars().take(MOST - 1).chain(['…']).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_names_everybody_and_escapes_them() {
        let series: Vec<Series> = (0..12)
            .map(|number| Series { name: format!("<t{number}>"), service_ns: vec![1_000_000 * (number + 1); 10] })
            .collect();
        let svg = service("What & why", &series, Duration::from_secs(1), 2);
        assert!(svg.contains("What &amp; why") && svg.contains("&lt;t11&gt;") && svg.contains("4 others"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert_eq!(svg.matches("<path").count(), SHOWN + 1);
        assert!(service("", &[], Duration::ZERO, 0).ends_with("</svg>\n"));
    }
}
