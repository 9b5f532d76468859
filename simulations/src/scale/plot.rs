//! Drawings as SVG, readable on a light and on a dark page, with nothing but text in them.
//!
//! Both axes are logarithmic or linear; each series is a line with a mark at each point and its name at
//! the end of the line, so that no colour has to be told from another.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Of the names beside the lines, at least.
const LINE_HEIGHT: f64 = 15.0;

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from zero.
    Linear,
    /// Each step ten times the last.
    Logarithmic,
}

/// An axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it tells, with its unit.
    pub title: String,
    /// How it is divided.
    pub scale: Scale,
    /// Where there is a mark; empty: found from the values.
    pub marks: Vec<f64>,
}

/// A line of a drawing.
#[derive(Clone, Debug)]
pub struct Series {
    /// What stands beside its end.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
    /// Whether it is a formula and no measurement.
    pub dashed: bool,
}

/// A drawing.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What stands above it.
    pub title: String,
    /// From left to right.
    pub x: Axis,
    /// From below.
    pub y: Axis,
    /// The lines.
    pub series: Vec<Series>,
}

/// Colours that stand out from white and from black; a class each, darker on a light page.
const COLOURS: [(&str, &str); 6] = [
    ("#0b6bcb", "#6cb6ff"),
    ("#b35900", "#ffab57"),
    ("#1a7f37", "#57d67a"),
    ("#a0308a", "#f088d8"),
    ("#8a6d00", "#e6cf4f"),
    ("#555555", "#bbbbbb"),
];

/// What part of the way along the axis a value is.
struct Range {
    scale: Scale,
    from: f64,
    to: f64,
}

impl Range {
    fn of(axis: &Axis, values: impl Iterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.chain(axis.marks.iter().copied()).collect();
        let most = values.iter().copied().fold(0.0, f64::max);
        let (from, to) = match axis.scale {
            Scale::Linear => (0.0, if most > 0.0 { most * 1.1 } else { 1.0 }),
            Scale::Logarithmic => {
                let positive = values.iter().copied().filter(|value| *value > 0.0);
                let least = positive.fold(f64::INFINITY, f64::min).min(most.max(1e-9));
                (10f64.powf(least.log10().floor()), 10f64.powf(most.max(1e-9).log10().ceil()))
            }
        };
        let to = if to > from { to } else { from * 10.0 + 1.0 };
        Self { scale: axis.scale, from, to }
    }

    fn part(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Logarithmic => {
                let span = self.to.log10() - self.from.log10();
                (value.max(self.from).log10() - self.from.log10()) / span
            }
        }
    }

    fn marks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let rough = (self.to - self.from) / 5.0;
                let power = 10f64.powf(rough.log10().floor());
                let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
                let step = steps.into_iter().find(|step| *step >= rough).unwrap_or(rough);
                (0..).map(|n| n as f64 * step).take_while(|mark| *mark <= self.to).collect()
            }
            Scale::Logarithmic => {
                let (first, last) = (self.from.log10().round(), self.to.log10().round());
                let powers = std::iter::successors(Some(first), |power| Some(power + 1.0));
                powers.take_while(|power| *power <= last).map(|power| 10f64.powf(power)).collect()
            }
        }
    }
}

/// A number as people write it: 1500 is 1.5k.
pub fn short(value: f64) -> String {
    let (value, unit) = match value {
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e3 => (v / 1e3, "k"),
        v => (v, ""),
    };
    let text = format!("{value:.2}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Plot {
    /// The drawing as a file.
    pub fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| series.points.iter());
        let x = Range::of(&self.x, points().map(|point| point.0));
        let y = Range::of(&self.y, points().map(|point| point.1));
        let mut svg = String::new();
        self.head(&mut svg);
        self.axes(&mut svg, &x, &y);
        self.lines(&mut svg, &x, &y);
        svg.push_str("</svg>\n");
        svg
    }

    fn head(&self, svg: &mut String) {
        let title = escaped(&self.title);
        let _ = writeln!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             role=\"img\" aria-label=\"{title}\" font-family=\"sans-serif\" font-size=\"12\">"
        );
        svg.push_str(
            "<style>\ntext { fill: #222 } .axis { stroke: #888 } .grid { stroke: #ddd }\n",
        );
        for (nth, (light, _)) in COLOURS.iter().enumerate() {
            let _ = writeln!(svg, ".c{nth} {{ stroke: {light}; fill: {light} }}");
        }
        svg.push_str(
            "path { fill: none !important; stroke-width: 2 } text { stroke: none !important }\n",
        );
        svg.push_str("@media (prefers-color-scheme: dark) {\n");
        svg.push_str("text { fill: #ddd } .axis { stroke: #999 } .grid { stroke: #444 }\n");
        for (nth, (_, dark)) in COLOURS.iter().enumerate() {
            let _ = writeln!(svg, ".c{nth} {{ stroke: {dark}; fill: {dark} }}");
        }
        svg.push_str("}\n</style>\n");
        let _ = writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{title}</text>"
        );
    }

    fn axes(&self, svg: &mut String, x: &Range, y: &Range) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for mark in y.marks() {
            let at = self.at_y(y, mark);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                at + 4.0,
                short(mark)
            );
        }
        let marks = if self.x.marks.is_empty() { x.marks() } else { self.x.marks.clone() };
        for mark in marks {
            let at = self.at_x(x, mark);
            let _ = writeln!(
                svg,
                "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{bottom}\" y2=\"{:.1}\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 5.0,
                bottom + 19.0,
                short(mark)
            );
        }
        let _ = writeln!(
            svg,
            "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{right}\" style=\"stroke-width:1\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text x=\"{LEFT}\" y=\"{:.1}\">{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 10.0,
            escaped(&self.x.title),
            TOP - 6.0,
            escaped(&self.y.title)
        );
    }

    fn lines(&self, svg: &mut String, x: &Range, y: &Range) {
        let mut names: Vec<(f64, usize)> = Vec::new();
        for (nth, series) in self.series.iter().enumerate() {
            let class = nth % COLOURS.len();
            let places: Vec<(f64, f64)> =
                series.points.iter().map(|(a, b)| (self.at_x(x, *a), self.at_y(y, *b))).collect();
            let Some(last) = places.last() else { continue };
            names.push((last.1, nth));
            let way: Vec<String> = places.iter().map(|(a, b)| format!("{a:.1} {b:.1}")).collect();
            let dash = if series.dashed { " stroke-dasharray=\"5 4\"" } else { "" };
            let _ = writeln!(svg, "<path class=\"c{class}\" d=\"M{}\"{dash}/>", way.join("L"));
            for (a, b) in places.iter().filter(|_| !series.dashed) {
                let _ = writeln!(
                    svg,
                    "<circle class=\"c{class}\" cx=\"{a:.1}\" cy=\"{b:.1}\" r=\"3\"/>"
                );
            }
        }
        // Names of lines that end at one place stand below each other.
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut free = TOP;
        for (at, nth) in names {
            let at = at.max(free);
            free = at + LINE_HEIGHT;
            let _ = writeln!(
                svg,
                "<text class=\"c{}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                nth % COLOURS.len(),
                WIDTH - RIGHT + 10.0,
                at + 4.0,
                escaped(&self.series[nth].name)
            );
        }
    }

    fn at_x(&self, range: &Range, value: f64) -> f64 {
        LEFT + range.part(value) * (WIDTH - LEFT - RIGHT)
    }

    fn at_y(&self, range: &Range, value: f64) -> f64 {
        HEIGHT - BOTTOM - range.part(value) * (HEIGHT - TOP - BOTTOM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>, scale: Scale) -> Plot {
        let axis = |title: &str| Axis { title: title.into(), scale, marks: Vec::new() };
        let series = Series { name: "a < b & c".into(), points, dashed: false };
        Plot { title: "t".into(), x: axis("x"), y: axis("y"), series: vec![series] }
    }

    #[test]
    fn every_point_is_a_mark_inside_the_drawing() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let svg = plot(vec![(3.0, 2.0), (1000.0, 998_001.0), (200.0, 0.0)], scale).svg();
            let centres: Vec<f64> = svg
                .split("cy=\"")
                .skip(1)
                .filter_map(|rest| rest.split('"').next()?.parse().ok())
                .collect();
            assert_eq!(centres.len(), 3);
            assert!(centres.iter().all(|at| (TOP..=HEIGHT - BOTTOM).contains(at)), "{centres:?}");
        }
    }

    #[test]
    fn a_higher_value_stands_higher_and_names_are_escaped() {
        let svg = plot(vec![(1.0, 1.0), (2.0, 10.0)], Scale::Linear).svg();
        let centres: Vec<f64> =
            svg.split("cy=\"").skip(1).filter_map(|r| r.split('"').next()?.parse().ok()).collect();
        assert!(centres[0] > centres[1]);
        assert!(svg.contains("a &lt; b &amp; c"));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([2.0, 1500.0, 2_000_000.0, 0.25].map(short), ["2", "1.5k", "2M", "0.25"]);
    }
}
