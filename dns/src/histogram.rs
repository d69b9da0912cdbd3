//! A histogram of durations for threads that count without waiting for each other: the library's own takes a lock for
//! each observation, and whoever loses the processor with that in its hand has all who answer wait.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// CoreDNS's buckets, 0.25 ms doubled up to 8 s, and what takes longer.
const SECONDS: [f64; 17] = [
    0.00025,
    0.0005,
    0.001,
    0.002,
    0.004,
    0.008,
    0.016,
    0.032,
    0.064,
    0.128,
    0.256,
    0.512,
    1.024,
    2.048,
    4.096,
    8.192,
    f64::INFINITY,
];

/// Durations by bucket. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    buckets: [AtomicU64; SECONDS.len()],
    nanoseconds: AtomicU64,
}

impl Histogram {
    pub(crate) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = SECONDS.partition_point(|bound| *bound < seconds);
        self.0.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let sum = Duration::from_nanos(self.0.nanoseconds.load(Ordering::Relaxed)).as_secs_f64();
        let counts = self.0.buckets.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = SECONDS.into_iter().zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::histogram;
    use prometheus_client::registry::{Metric, Registry};

    use super::*;

    fn text(metric: impl Metric) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register("took", "Time", metric);
        encode(&mut text, &registry).expect("text");
        text
    }

    #[test]
    fn it_tells_what_the_librarys_own_tells() {
        let (ours, own) = (Histogram::default(), histogram::Histogram::new(SECONDS[..16].iter().copied()));
        for micros in [0, 125, 250, 375, 1000, 500_000, 8_192_000, 9_000_000] {
            let took = Duration::from_micros(micros);
            ours.observe(took);
            own.observe(took.as_secs_f64());
        }
        assert_eq!(text(ours), text(own));
    }
}
