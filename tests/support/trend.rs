//! Whether something that is measured again and again grows.

/// The part of a run at its beginning that is left out: caches fill then.
const WARM_UP: f64 = 0.2;

/// How much something may grow.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// Per hour.
    pub per_hour: f64,
    /// What it goes up and down by without growing: a growth over the run that is less tells nothing.
    pub noise: f64,
}

/// What a series tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trend {
    /// It grows by more than it may.
    Grows,
    /// It does not.
    Level,
    /// Too little was measured, or for too short a time: what grows as fast as it may would not stand out from the noise.
    NotJudged,
}

/// Measurements of one thing.
#[derive(Debug, Clone, Default)]
pub struct Series {
    points: Vec<(f64, f64)>,
}

impl Series {
    /// Adds what was measured so many hours after the start.
    pub fn add(&mut self, hours: f64, value: f64) {
        self.points.push((hours, value));
    }

    /// Returns the first value after the warm-up.
    pub fn first(&self) -> Option<f64> {
        self.warm().first().map(|(_, value)| *value)
    }

    /// Returns the last value.
    pub fn last(&self) -> Option<f64> {
        self.points.last().map(|(_, value)| *value)
    }

    /// Returns the highest value.
    pub fn max(&self) -> Option<f64> {
        self.points.iter().map(|(_, value)| *value).reduce(f64::max)
    }

    /// Returns by how much it grows in an hour, by least squares over what was measured after the warm-up.
    pub fn slope_per_hour(&self) -> Option<f64> {
        let warm = self.warm();
        let count = warm.len() as f64;
        let mean = |part: fn(&(f64, f64)) -> f64| warm.iter().map(part).sum::<f64>() / count;
        let (hours, value) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = warm.iter().map(|point| (point.0 - hours).powi(2)).sum();
        let shared: f64 = warm.iter().map(|point| (point.0 - hours) * (point.1 - value)).sum();
        (warm.len() > 2 && spread > 0.0).then(|| shared / spread)
    }

    /// Returns whether it grows by more than it may.
    pub fn trend(&self, bound: Bound) -> Trend {
        let (Some(slope), [(first, _), .., (last, _)]) = (self.slope_per_hour(), self.warm()) else {
            return Trend::NotJudged;
        };
        let hours = last - first;
        if slope > bound.per_hour && slope * hours > bound.noise {
            Trend::Grows
        } else if bound.per_hour * hours >= bound.noise {
            Trend::Level
        } else {
            Trend::NotJudged
        }
    }

    fn warm(&self) -> &[(f64, f64)] {
        let cold = (self.points.len() as f64 * WARM_UP).ceil();
        let from = self.points.iter().zip(0..).take_while(|(_, place)| f64::from(*place) < cold).count();
        &self.points[from..]
    }
}
