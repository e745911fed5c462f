//! Thin curves on a pixel grid: how far each pixel is from the nearest of them.

/// A polyline with a half-width at each point, in pixels.
pub(crate) struct Stroke {
    pub(crate) points: Vec<[f32; 2]>,
    pub(crate) widths: Vec<f32>,
}

/// Distance to the nearest stroke in units of its half-width there, `[size, size]`; `reach` and beyond is infinite.
pub(crate) fn distances(strokes: &[Stroke], size: usize, reach: f32) -> Vec<f32> {
    let mut field = vec![f32::INFINITY; size * size];
    for stroke in strokes {
        let ends = stroke.points.windows(2).zip(stroke.widths.windows(2));
        for (points, widths) in ends {
            segment(
                &mut field,
                size,
                reach,
                [points[0], points[1]],
                [widths[0], widths[1]],
            );
        }
    }
    field
}

fn segment(field: &mut [f32], size: usize, reach: f32, [a, b]: [[f32; 2]; 2], widths: [f32; 2]) {
    let margin = reach * widths[0].max(widths[1]);
    let span = |axis: usize| {
        let (low, high) = (a[axis].min(b[axis]) - margin, a[axis].max(b[axis]) + margin);
        // `as` saturates, so a segment outside gives an empty range
        (low.floor().max(0.0) as usize)..((high.ceil() + 1.0).max(0.0) as usize).min(size)
    };
    let along = [b[0] - a[0], b[1] - a[1]];
    let squared = (along[0] * along[0] + along[1] * along[1]).max(1e-9);
    for y in span(1) {
        for x in span(0) {
            let from = [x as f32 - a[0], y as f32 - a[1]];
            let t = ((from[0] * along[0] + from[1] * along[1]) / squared).clamp(0.0, 1.0);
            let (dx, dy) = (from[0] - t * along[0], from[1] - t * along[1]);
            let width = widths[0] + t * (widths[1] - widths[0]);
            let distance = (dx * dx + dy * dy).sqrt() / width;
            let cell = &mut field[y * size + x];
            if distance < reach && distance < *cell {
                *cell = distance;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_to_a_horizontal_stroke() {
        let stroke = Stroke {
            points: vec![[2.0, 5.0], [7.0, 5.0]],
            widths: vec![2.0, 2.0],
        };
        let field = distances(&[stroke], 12, 1.6);
        let at = |x: usize, y: usize| field[y * 12 + x];
        assert_eq!(at(4, 5), 0.0);
        assert_eq!(at(4, 7), 1.0);
        assert_eq!(at(4, 8), 1.5);
        assert_eq!(at(4, 9), f32::INFINITY);
        assert_eq!(at(9, 5), 1.0);
        assert!((at(9, 6) - 5f32.sqrt() / 2.0).abs() < 1e-6);
    }

    #[test]
    fn the_nearest_stroke_counts_and_strokes_may_leave_the_image() {
        let line = |y: f32| Stroke {
            points: vec![[-50.0, y], [50.0, y]],
            widths: vec![1.0, 1.0],
        };
        let field = distances(&[line(1.0), line(4.0), line(-90.0)], 6, 3.0);
        let column: Vec<f32> = (0..6).map(|y| field[y * 6]).collect();
        assert_eq!(column, [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]);
    }
}
