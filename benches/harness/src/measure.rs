//! What an operation costs: time, CPU time, bytes written; and what the process holds in memory.

use std::{fs, ops::Sub, time::Duration};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, sleep_until};

/// Latencies are kept to two digits: 1 % is less than one run differs from the next, and small histograms leave the
/// measure of memory alone.
const LATENCY_DIGITS: u8 = 2;

/// What the processes of a store have used so far.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// CPU time.
    pub cpu: Duration,
    /// Bytes handed to the operating system; `None` where it does not tell.
    pub written_bytes: Option<u64>,
}

impl Usage {
    /// Returns what this process has used.
    pub fn now() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Self {
            cpu: Duration::new(cpu.tv_sec.unsigned_abs(), u32::try_from(cpu.tv_nsec).unwrap_or_default()),
            written_bytes: field("/proc/self/io", "wchar:"),
        }
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            written_bytes: self.written_bytes.zip(before.written_bytes).map(|(after, before)| after - before),
        }
    }
}

/// Returns the memory that the process holds, in bytes; `None` where the operating system does not tell.
pub fn resident_bytes() -> Option<u64> {
    resident_bytes_of("self")
}

/// Returns the memory that a process holds, in bytes.
pub fn resident_bytes_of(process: &str) -> Option<u64> {
    field(&format!("/proc/{process}/status"), "VmRSS:").map(|kibibytes| kibibytes * 1_024)
}

fn field(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// Waits until the store is idle: what a store puts off, such as folding its log into the database, shall be counted
/// with the operations that caused it and not with the next.
pub async fn idle(usage: impl Fn() -> Usage) {
    /// How long to watch at a time.
    const GLANCE: Duration = Duration::from_millis(10);
    /// A process that uses less than this in a glance is idle.
    const IDLE_CPU: Duration = Duration::from_micros(500);
    /// How often to look at most.
    const GLANCES_MAX: usize = 100;
    for _ in 0..GLANCES_MAX {
        let before = usage();
        sleep_until(Instant::now() + GLANCE).await;
        let used = usage() - before;
        if used.cpu < IDLE_CPU && used.written_bytes.unwrap_or(0) == 0 {
            break;
        }
    }
}

/// Latencies in nanoseconds.
pub type Latencies = Histogram<u64>;

/// An empty histogram, up to a minute.
pub fn latencies() -> Latencies {
    Histogram::new_with_bounds(1, 60_000_000_000, LATENCY_DIGITS).expect("the bounds are sound")
}

/// What was measured of one operation.
#[derive(Debug, Clone)]
pub struct Measurement {
    /// How many operations were acknowledged.
    pub ops: u64,
    /// Operations per second.
    pub ops_per_s: f64,
    /// The median latency.
    pub p50_us: f64,
    /// The latency that one in a hundred exceeds.
    pub p99_us: f64,
    /// CPU time.
    pub cpu_us_per_op: f64,
    /// Bytes handed to the operating system; `None` where it does not tell.
    pub written_bytes_per_op: Option<f64>,
}

impl Measurement {
    /// Divides what was used among the operations.
    pub fn new(ops: u64, elapsed: Duration, latencies: &Histogram<u64>, used: Usage) -> Self {
        let per_op = ops.max(1) as f64;
        let quantile_us = |quantile| latencies.value_at_quantile(quantile) as f64 / 1_000.0;
        Self {
            ops,
            ops_per_s: ops as f64 / elapsed.as_secs_f64(),
            p50_us: quantile_us(0.50),
            p99_us: quantile_us(0.99),
            cpu_us_per_op: used.cpu.as_secs_f64() * 1_000_000.0 / per_op,
            written_bytes_per_op: used.written_bytes.map(|bytes| bytes as f64 / per_op),
        }
    }
}
