//! The plots: bars in groups, over a logarithmic scale, because stores differ by orders of magnitude.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;
use sessile_harness::format;

const SIZE: (u32, u32) = (1_000, 460);
/// Of the width of a group, what its bars take.
const BARS_WIDTH: f64 = 0.86;
/// As many as there are stores, told apart by most eyes (mostly of Paul Tol's and Okabe and Ito's palettes).
const COLOURS: [RGBColor; 12] = [
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x11, 0x77, 0x73),
    RGBColor(0x66, 0xc2, 0x7a),
    RGBColor(0x33, 0x22, 0x88),
    RGBColor(0x88, 0xcc, 0xee),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xaa, 0x44, 0x99),
    RGBColor(0xf0, 0xe4, 0x42),
    RGBColor(0xdd, 0xcc, 0x77),
    RGBColor(0x77, 0x77, 0x77),
];

/// Bars of one colour: a name, and a value for each group.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) values: Vec<Option<f64>>,
}

/// What is plotted.
pub(crate) struct Plot<'a> {
    pub(crate) title: &'a str,
    pub(crate) groups: &'a [String],
    pub(crate) series: &'a [Series],
    /// Writes a value of the scale.
    pub(crate) unit: fn(f64) -> String,
}

/// Draws a plot; without any value there is none.
pub(crate) fn draw(path: &Path, plot: &Plot<'_>) -> anyhow::Result<()> {
    draw_bars(path, plot).map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))
}

fn draw_bars(path: &Path, plot: &Plot<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let values =
        || plot.series.iter().flat_map(|series| &series.values).flatten().copied().filter(|&value| value > 0.0);
    let (Some(least), Some(most)) = (values().reduce(f64::min), values().reduce(f64::max)) else { return Ok(()) };
    // The scale begins and ends at powers of ten; the least bar is not without height.
    let (bottom, top) = (10_f64.powf((least / 1.5).log10().floor()), 10_f64.powf((most * 1.1).log10().ceil()));

    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let groups = plot.groups.len() as f64;
    let mut chart = ChartBuilder::on(&area)
        .caption(plot.title, ("sans-serif", 20))
        .margin(12)
        .margin_right(210)
        .x_label_area_size(30)
        .y_label_area_size(70)
        .build_cartesian_2d(-0.5..groups - 0.5, (bottom..top).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(0xdd, 0xdd, 0xdd))
        .x_labels(2 * plot.groups.len() + 1)
        .x_label_formatter(&|&x| {
            let whole = (x - x.round()).abs() < 1e-9 && x > -0.5;
            if whole { plot.groups.get(x.round() as usize).cloned().unwrap_or_default() } else { String::new() }
        })
        .y_label_formatter(&|&value| (plot.unit)(value))
        .label_style(("sans-serif", 14))
        .draw()?;

    let width = BARS_WIDTH / plot.series.len() as f64;
    for (place, series) in plot.series.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        let bars = series.values.iter().enumerate().filter_map(|(group, value)| {
            let left = group as f64 - BARS_WIDTH / 2.0 + place as f64 * width;
            let value = value.filter(|&value| value > 0.0)?;
            Some(Rectangle::new([(left, bottom), (left + width * 0.9, value)], colour.filled()))
        });
        chart.draw_series(bars)?;
    }
    // Beside the chart, where no bar is hidden.
    let style = ("sans-serif", 13).into_font();
    for (place, series) in plot.series.iter().enumerate() {
        let (left, top) = (SIZE.0 as i32 - 212, 52 + 22 * place as i32);
        let colour = COLOURS[place % COLOURS.len()];
        area.draw(&Rectangle::new([(left, top), (left + 12, top + 12)], colour.filled()))?;
        area.draw(&Text::new(series.name.clone(), (left + 18, top), style.clone()))?;
    }
    area.present()?;
    Ok(())
}

/// Writes operations per second.
pub(crate) fn per_second(value: f64) -> String {
    format!("{}/s", format::rate(value))
}
