//! Machines at each stage over time, as SVG: a panel for each server, one scale for all.

use std::fmt::Write;

use crate::log::Stage;
use crate::summary::Summary;

const WIDTH: f64 = 960.0;
const PANEL: f64 = 300.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 44.0;
const BELOW: f64 = 56.0;

/// What is drawn, and how: colours that stay apart for the colour-blind (Okabe and Ito).
const SHOWN: [(Stage, &str, &str); 5] = [
    (Stage::Ipxe, "has an address", "#0072B2"),
    (Stage::Script, "has its script", "#E69F00"),
    (Stage::Initramfs, "has its initramfs", "#009E73"),
    (Stage::Root, "has its root", "#CC79A7"),
    (Stage::Up, "is up", "#000000"),
];

/// The plot. `below`: a line of words under it.
pub fn svg(storms: &[Summary], below: &str) -> String {
    let curves = storms.iter().flat_map(|storm| &storm.stages).flat_map(|row| &row.curve);
    let longest = curves.map(|(at, _)| *at).fold(1.0, f64::max);
    let most = storms.iter().map(|storm| storm.machines).max().unwrap_or(1).max(1);
    let (every_x, every_y) = (tick(longest), tick(most as f64));
    let (end_x, end_y) = ((longest / every_x).ceil() * every_x, most as f64 * 1.02);
    let height = storms.len() as f64 * (TOP + PANEL) + BELOW + 28.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    let x = |at: f64| LEFT + at / end_x * (WIDTH - LEFT - RIGHT);
    for (number, storm) in storms.iter().enumerate() {
        let top = TOP + number as f64 * (TOP + PANEL);
        let y = |count: f64| top + PANEL - count / end_y * PANEL;
        let _ = writeln!(
            text,
            "<text x=\"{LEFT}\" y=\"{:.1}\" font-size=\"15\" font-weight=\"bold\">{}</text>",
            top - 12.0,
            plain(&title(storm))
        );
        let mut at = 0.0;
        while at <= end_x + every_x / 2.0 {
            let _ = writeln!(
                text,
                "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{top:.1}\" y2=\"{1:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{0:.1}\" y=\"{2:.1}\" text-anchor=\"middle\" fill=\"#444\">{at:.0}</text>",
                x(at),
                top + PANEL,
                top + PANEL + 18.0
            );
            at += every_x;
        }
        let mut count = 0.0;
        while count <= most as f64 {
            let _ = writeln!(
                text,
                "<line x1=\"{LEFT}\" x2=\"{0:.1}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{2:.1}\" y=\"{3:.1}\" text-anchor=\"end\" fill=\"#444\">{count:.0}</text>",
                WIDTH - RIGHT,
                y(count),
                LEFT - 8.0,
                y(count) + 4.0
            );
            count += every_y;
        }
        let _ = writeln!(
            text,
            "<text x=\"20\" y=\"{0:.1}\" transform=\"rotate(-90 20 {0:.1})\" text-anchor=\"middle\" \
             fill=\"#444\">machines</text>",
            top + PANEL / 2.0
        );
        for (line, (stage, words, colour)) in SHOWN.into_iter().enumerate() {
            let Some(row) = storm.stages.iter().find(|row| row.stage == stage) else { continue };
            let mut points = format!("{:.1},{:.1}", x(0.0), y(0.0));
            for (at, count) in &row.curve {
                let _ = write!(points, " {:.1},{:.1}", x(*at), y(*count as f64));
            }
            let last = row.curve.last().map_or(0.0, |(_, count)| *count as f64);
            let _ = write!(points, " {:.1},{:.1}", x(end_x), y(last));
            let _ = writeln!(
                text,
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
            );
            let at = top + 20.0 + line as f64 * 22.0;
            let _ = writeln!(
                text,
                "<line x1=\"{0:.1}\" x2=\"{1:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"{colour}\" \
                 stroke-width=\"3\"/><text x=\"{2:.1}\" y=\"{3:.1}\">{words}</text>",
                WIDTH - RIGHT + 10.0,
                WIDTH - RIGHT + 30.0,
                WIDTH - RIGHT + 36.0,
                at + 4.0
            );
        }
    }
    let _ = writeln!(
        text,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#444\">seconds since the first was \
         switched on</text>",
        x(end_x / 2.0),
        height - BELOW + 8.0
    );
    let _ = writeln!(
        text,
        "<text x=\"{LEFT}\" y=\"{:.1}\" font-size=\"11\" fill=\"#666\">{}</text>\n</svg>",
        height - 16.0,
        plain(below)
    );
    text
}

fn title(storm: &Summary) -> String {
    let failed = match storm.failed {
        0 => "none failed".to_string(),
        failed => format!("{failed} failed"),
    };
    format!(
        "{}: {} machines, {failed}, the last one up after {:.0} s",
        storm.server, storm.machines, storm.makespan
    )
}

/// A round step: five to ten of them reach the end.
fn tick(end: f64) -> f64 {
    let power = 10f64.powf((end.max(1e-9) / 5.0).log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|step| step * power);
    steps.into_iter().rev().find(|step| end / step >= 5.0).unwrap_or(power)
}

fn plain(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::drive::Outcome;
    use crate::log::Log;
    use crate::process::Usage;

    #[test]
    fn steps_are_round() {
        for (end, step) in [(10.0, 2.0), (47.0, 5.0), (10_000.0, 2000.0), (1.0, 0.2), (99.0, 10.0)]
        {
            assert!((tick(end) - step).abs() < 1e-9, "{end}: {}", tick(end));
        }
    }

    #[test]
    fn every_line_stays_on_the_paper() {
        let mut logs = vec![Log::default(); 50];
        for (number, log) in logs.iter_mut().enumerate() {
            for stage in Stage::ALL {
                log.done(stage, Duration::from_secs(number as u64 + stage as u64));
            }
        }
        let outcome = Outcome { logs, lost: 0, unsent: 0, bytes: 0, asked: 0 };
        let storms =
            ["koboshi", "a & b"].map(|name| Summary::new(name, &outcome, Usage::default(), 0.0));
        let text = svg(&storms, "1 % of datagrams < lost");
        assert!(text.contains("a &amp; b") && text.contains("1 % of datagrams &lt; lost"));
        assert_eq!(text.matches("<polyline").count(), 10);
        for points in text.split("points=\"").skip(1) {
            let points = points.split('"').next().expect("closed");
            for point in points.split(' ') {
                let (x, y) = point.split_once(',').expect("a point");
                let (x, y): (f64, f64) = (x.parse().expect("x"), y.parse().expect("y"));
                assert!((0.0..=WIDTH).contains(&x) && (0.0..=800.0).contains(&y), "{point}");
            }
        }
    }
}
