//! Curves over the number of nodes, as SVG.

use std::path::Path;

use plotters::prelude::*;

/// Curves that share their axes, both of them logarithmic.
pub(crate) struct Plot {
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) lines: Vec<(&'static str, Vec<(f64, f64)>)>,
}

/// Draws one into a folder.
pub(crate) fn draw(folder: &Path, plot: &Plot) -> anyhow::Result<()> {
    let points = || plot.lines.iter().flat_map(|(_, points)| points);
    let bounds = |of: fn(&(f64, f64)) -> f64| {
        let least = points().map(of).fold(f64::INFINITY, f64::min);
        let most = points().map(of).fold(f64::NEG_INFINITY, f64::max);
        (least, most)
    };
    let ((first, last), (low, high)) = (bounds(|point| point.0), bounds(|point| point.1));
    std::fs::create_dir_all(folder)?;
    let path = folder.join(plot.file);
    let area = SVGBackend::new(&path, (720, 400)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(plot.title, ("sans-serif", 20))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(
            (first..last * 1.1).log_scale(),
            (low / 1.5..high * 1.5).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("nodes")
        .y_desc(plot.unit)
        .draw()?;
    for (index, (name, points)) in plot.lines.iter().enumerate() {
        let colour = Palette99::pick(index).to_rgba();
        chart
            .draw_series(
                LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(3),
            )?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour));
    }
    chart
        .configure_series_labels()
        .border_style(BLACK)
        .background_style(WHITE)
        .position(SeriesLabelPosition::UpperLeft)
        .draw()?;
    area.present()?;
    Ok(())
}
