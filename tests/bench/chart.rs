//! Charts as SVG: bars beside each other, and lines on two logarithmic axes.

use std::{ops::Range, path::Path};

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// One bar: its name, its length, and its label.
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) said: String,
}

/// A group of bars under a title.
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
}

/// A line: its name and its points.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: u32 = 900;
const OWN: RGBColor = RGBColor(0x1b, 0x6e, 0xc2);
const OTHER: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);
const COLOURS: [RGBColor; 6] = [
    OWN,
    RGBColor(0xd9, 0x53, 0x19),
    RGBColor(0x3a, 0x8f, 0x3a),
    RGBColor(0x7e, 0x2f, 0x8e),
    RGBColor(0x80, 0x80, 0x80),
    RGBColor(0xb8, 0x86, 0x0b),
];

/// Draws panels in rows of two; bars of this project are in colour.
pub(crate) fn bars(file: &Path, title: &str, panels: &[Panel]) -> Result<()> {
    let rows = panels.len().div_ceil(2);
    let most = panels.iter().map(|panel| panel.bars.len()).max().unwrap_or(0) as u32;
    let root = SVGBackend::new(file, (WIDTH, 50 + rows as u32 * (45 + most * 22))).into_drawing_area();
    draw_bars(&root, title, panels, rows).map_err(|error| anyhow!("draw {}: {error}", file.display()))?;
    root.present().map_err(|error| anyhow!("write {}: {error}", file.display()))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw_bars(root: &Area<'_>, title: &str, panels: &[Panel], rows: usize) -> Drawn {
    root.fill(&WHITE)?;
    let below = root.titled(title, ("sans-serif", 17))?;
    for (area, panel) in below.split_evenly((rows, 2)).iter().zip(panels) {
        let area = area.titled(&panel.title, ("sans-serif", 14))?;
        let longest = panel.bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
        // Names to the left, labels to the right: the bars have the half in between.
        let (left, span) = (130_i32, 210.0);
        for (nth, bar) in panel.bars.iter().enumerate() {
            let top = 8 + nth as i32 * 22;
            let colour = if bar.name.starts_with("proxymatic") { OWN } else { OTHER };
            let right = left + ((bar.value / longest * span) as i32).max(1);
            area.draw(&Rectangle::new([(left, top), (right, top + 15)], colour.filled()))?;
            area.draw(&Text::new(bar.name.clone(), (8, top + 2), ("sans-serif", 12)))?;
            area.draw(&Text::new(bar.said.clone(), (right + 5, top + 2), ("sans-serif", 12)))?;
        }
    }
    Ok(())
}

/// Draws lines on two logarithmic axes, on which a proportional line has 45 degrees.
pub(crate) fn lines(file: &Path, title: &str, axes: [&str; 2], all: &[Line]) -> Result<()> {
    let root = SVGBackend::new(file, (WIDTH, 460)).into_drawing_area();
    draw_lines(&root, title, axes, all).map_err(|error| anyhow!("draw {}: {error}", file.display()))?;
    root.present().map_err(|error| anyhow!("write {}: {error}", file.display()))
}

/// Round numbers of each decade, and fewer over many decades, so that labels do not overlap.
fn ticks(range: &Range<f64>) -> Vec<f64> {
    let decades = range.start.log10().floor() as i32..=range.end.log10().ceil() as i32;
    let of_each: &[f64] = if decades.clone().count() > 4 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let all = decades.flat_map(|decade| of_each.iter().map(move |it| it * 10_f64.powi(decade)));
    all.filter(|it| range.contains(it)).collect()
}

fn draw_lines(root: &Area<'_>, title: &str, axes: [&str; 2], all: &[Line]) -> Drawn {
    root.fill(&WHITE)?;
    let points = || all.iter().flat_map(|line| &line.points);
    let range = |of: fn(&(f64, f64)) -> f64| {
        let (least, most) = points().map(of).fold((f64::MAX, f64::MIN_POSITIVE), |(a, b), x| (a.min(x), b.max(x)));
        (least * 0.8)..(most * 1.3)
    };
    let (across, up) = (range(|point| point.0), range(|point| point.1));
    let mut chart = ChartBuilder::on(root)
        .caption(title, ("sans-serif", 17))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(
            across.clone().log_scale().with_key_points(ticks(&across)),
            up.clone().log_scale().with_key_points(ticks(&up)),
        )?;
    let said = |value: &f64| value.to_string();
    chart
        .configure_mesh()
        .x_desc(axes[0])
        .y_desc(axes[1])
        .x_label_formatter(&said)
        .y_label_formatter(&said)
        .light_line_style(WHITE)
        .draw()?;
    for (line, colour) in all.iter().zip(COLOURS.iter().cycle()) {
        let drawn = chart.draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))?;
        let (colour, name) = (*colour, line.name.as_str());
        drawn.label(name).legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(OTHER)
        .draw()?;
    Ok(())
}
