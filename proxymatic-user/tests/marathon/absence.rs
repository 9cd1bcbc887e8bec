//! Marathon away for seconds or for minutes, by a clock that the test moves while the source waits.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use marathon_sim::{ShortApp, Sim, StatusCode};
use proxymatic_user::{
    model::Snapshot,
    source::{
        ManualClock, Report,
        marathon::{self, Config},
    },
};
use tokio::{sync::mpsc, time::sleep};

use crate::watch::{MS, PATIENCE, backends};

/// The longest time from Marathon's return to the first change that is served.
const SERVED: Duration = Duration::from_secs(2);
/// The waits of an idle source: for the next read, and for the stream.
const WAITS: usize = 2;

struct Source {
    clock: ManualClock,
    reports: mpsc::Receiver<Report>,
    published: Snapshot,
}

impl Source {
    /// Starts a source with the usual durations.
    fn start(sim: &Sim) -> Self {
        let (send, reports) = mpsc::channel(64);
        let clock = ManualClock::new();
        let config = Config::new(&[sim.url()], Duration::from_secs(60), NonZeroU32::MIN).expect("a good URL");
        tokio::spawn(marathon::run(Config { clock: clock.clock(), seed: 1, ..config }, send));
        Self { clock, reports, published: Snapshot::default() }
    }

    /// Waits until the source does nothing but wait, and takes its reports.
    async fn idle(&mut self) {
        let (begun, mut idle) = (Instant::now(), 0);
        while idle < 2 {
            assert!(begun.elapsed() < PATIENCE, "the source does not come to rest");
            sleep(MS).await;
            let now = self.clock.now();
            let waits = self.clock.waits().iter().filter(|deadline| **deadline > now).count();
            idle = if waits < WAITS { 0 } else { idle + 1 };
            while let Ok(report) = self.reports.try_recv() {
                idle = 0;
                if let Report::Snapshot { snapshot, .. } = report {
                    self.published = snapshot;
                }
            }
        }
    }

    /// Returns when the source does something next. If that is far away, an event may still be on its way to it.
    async fn next(&self) -> Instant {
        let begun = Instant::now();
        loop {
            let next = self.clock.waits().into_iter().min().expect("a wait");
            if next <= self.clock.now() + SERVED || begun.elapsed() > PATIENCE {
                return next;
            }
            sleep(MS).await;
        }
    }

    /// Moves the clock from wait to wait until a port is served or the time is over. Returns the time that it took.
    async fn runs(&mut self, port: u16, most: Duration) -> Duration {
        let begun = self.clock.now();
        self.idle().await;
        while backends(&self.published, port).is_empty() {
            let next = self.next().await;
            if next > begun + most {
                self.clock.move_to(begun + most);
                break;
            }
            self.clock.move_to(next);
            self.idle().await;
        }
        self.clock.now() - begun
    }
}

#[tokio::test]
async fn change_after_an_absence_is_served_within_2_s() {
    for absence in [10, 120, 1_200].map(Duration::from_secs) {
        let sim = Sim::start().await.unwrap();
        sim.create(ShortApp::new("/web", 1234).task("10.0.0.1", 8080)).unwrap();
        let mut source = Source::start(&sim);
        source.runs(1234, Duration::from_secs(60)).await;
        sim.lose_leader(StatusCode::BAD_GATEWAY);
        assert_eq!(source.runs(1235, absence).await, absence, "no other app");
        sim.elect(None);
        sim.create(ShortApp::new("/meanwhile", 1235).task("10.0.0.2", 8080)).unwrap();
        let took = source.runs(1235, Duration::from_secs(60)).await;
        println!("after an absence of {absence:?}: {took:?}");
        assert!(took < SERVED, "after an absence of {absence:?}: {took:?}");
        sim.create(ShortApp::new("/later", 1236).task("10.0.0.3", 8080)).unwrap();
        let took = source.runs(1236, Duration::from_secs(60)).await;
        println!("the next change: {took:?}");
        assert!(took < SERVED, "the next change after an absence of {absence:?}: {took:?}");
    }
}
