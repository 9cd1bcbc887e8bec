//! The recordings of real Marathons, played to the Marathon source. After each event, the published backends are compared
//! with the [oracle](oracle::Oracle), which decides by the words of Marathon's documents. `data/README.md` describes the
//! recordings.
//!
//! Times are those of the recording, by a clock that the replay moves. It moves only while the source does nothing but
//! wait, so that no load of the machine changes what happens when.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is the report too")]
#![expect(clippy::print_stdout, reason = "the table of events is a result: cargo test -- --nocapture shows it")]

mod oracle;
mod player;
mod recording;
mod shapes;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    time::{Duration, Instant},
};

use proxymatic_user::{
    model::{Snapshot, State},
    source::{
        ManualClock, Report,
        marathon::{self, Config, Timing},
    },
};
use tokio::{sync::mpsc, time::sleep};

use self::{
    oracle::{Oracle, Place, Traffic},
    player::{Player, event_data, event_name},
    recording::{Step, What},
};

const MS: Duration = Duration::from_millis(1);
/// The longest time from an event to its read, and from a loss to its confirmation, by the clock of the replay.
const HANDLED: Duration = Duration::from_millis(6);
/// The longest time until the published backends are what they must be, by the clock of the replay.
const SETTLED: Duration = Duration::from_secs(10);
/// How often the source is found waiting until it counts as idle. Bytes may be on their way to it.
const IDLE: u32 = 2;
/// The waits of an idle source: for the next read, and for the stream.
const WAITS: usize = 2;
/// The longest time until the source is idle, by the clock of the machine.
const AT_WORK: Duration = Duration::from_secs(120);

/// Returns short durations, but no poll that could hide a missed event.
fn quick() -> Timing {
    Timing {
        refresh: Duration::from_secs(600),
        quiet: MS,
        at_most: 2 * MS,
        confirm: 5 * MS,
        retry_first: MS,
        retry_most: MS,
        ..Timing::default()
    }
}

/// The services of one replay, and what differs.
struct Replay {
    player: Player,
    oracle: Oracle,
    clock: ManualClock,
    /// When the recording began.
    origin: Instant,
    reports: mpsc::Receiver<Report>,
    published: Snapshot,
    /// How many events of each type came, and how many differences followed.
    events: BTreeMap<String, (usize, usize)>,
    differences: Vec<String>,
}

/// Replays a recording. Returns the differences.
async fn replay(name: &str) -> Vec<String> {
    let begun = Instant::now();
    let steps = recording::read(name);
    let first = steps.iter().position(|step| !step.responses.is_empty()).unwrap();
    let (player, mut oracle) = (Player::start(&steps).await, Oracle::new(&steps));
    for step in &steps[..=first] {
        player.play(step);
        oracle.play(step);
    }
    let (send, reports) = mpsc::channel(64);
    let config = Config::new(&[player.url()], Duration::from_secs(60), NonZeroU32::MIN).unwrap();
    let clock = ManualClock::new();
    let config = Config { timing: quick(), seed: 1, clock: clock.clock(), ..config };
    let origin = clock.now() - Duration::from_secs_f64(steps[first].at);
    let source = tokio::spawn(marathon::run(config, send));
    let mut replay = Replay {
        player,
        oracle,
        clock,
        origin,
        reports,
        published: Snapshot::default(),
        events: BTreeMap::new(),
        differences: Vec::new(),
    };
    for step in &steps[first + 1..] {
        replay.step(step).await;
    }
    source.abort();
    let requests = replay.player.requests();
    let listings = requests.iter().filter(|path| *path == "/v2/apps").count();
    println!("{name}: {:.1} s of {:.0} s", begun.elapsed().as_secs_f64(), steps.last().unwrap().at);
    println!("    {} requests, {listings} of them listings of all apps", requests.len());
    for (event, (count, differences)) in &replay.events {
        println!("    {event:32} {count:5} events {differences:5} differences");
    }
    replay.differences
}

impl Replay {
    async fn step(&mut self, step: &Step) {
        self.reach(self.origin + Duration::from_secs_f64(step.at)).await;
        let expected = self.oracle.play(step);
        let requests = self.player.request_count();
        let sent = self.player.play(step);
        let event = match &step.what {
            What::Event(frame) => event_name(frame).map(str::to_owned),
            What::Silence | What::StreamOpens | What::StreamEnds => Some("(without an event)".to_owned()),
        };
        let Some(event) = event else { return };
        // Other clients that attach change nothing.
        if sent && event != "event_stream_attached" {
            self.is_noticed(requests).await;
        }
        // Where other events follow before the next responses, only what the event names must be right.
        let named = match &step.what {
            What::Event(frame) if !step.is_complete => {
                let data = event_data(frame);
                let name = data["appId"].as_str().or(data["runSpecId"].as_str());
                Some(name.unwrap_or_default().to_owned())
            }
            _ => None,
        };
        let settled = match step.what {
            What::StreamEnds => return,
            What::Event(_) if sent => self.settles(&expected, named.as_deref()).await,
            // Events that the source does not ask for, and changes without an event, are seen by the next read.
            _ if self.player.is_attached() || step.what == What::StreamOpens => {
                self.idle().await;
                if differences(&self.published, &expected, None).is_empty() {
                    return;
                }
                let requests = self.player.request_count();
                self.player.poke();
                self.is_noticed(requests).await;
                self.settles(&expected, None).await
            }
            _ => return,
        };
        let counts = self.events.entry(event.clone()).or_default();
        counts.0 += 1;
        counts.1 += settled.len();
        let data = match &step.what {
            What::Event(frame) => event_data(frame).to_string().chars().take(300).collect(),
            _ => String::new(),
        };
        for difference in settled {
            self.differences.push(format!("{:.3} s, {event} {data}\n    {difference}", step.at));
        }
    }

    /// Waits until the source has noticed an event: the source reads, or a read is due.
    async fn is_noticed(&mut self, requests: usize) {
        let begun = Instant::now();
        let soon = self.clock.now() + HANDLED;
        while self.player.request_count() == requests && self.clock.waits().iter().all(|deadline| *deadline > soon) {
            assert!(begun.elapsed() < AT_WORK, "the source does not notice an event");
            sleep(MS).await;
        }
    }

    /// Waits until the published backends are the expected ones, also after the read that an event causes. Returns the
    /// differences that are left.
    async fn settles(&mut self, expected: &BTreeMap<String, Traffic>, named: Option<&str>) -> Vec<String> {
        let begun = self.clock.now();
        self.reach(begun + HANDLED).await;
        loop {
            let wrong = differences(&self.published, expected, named);
            let next = self.clock.waits().into_iter().min();
            let Some(next) = next.filter(|next| !wrong.is_empty() && *next < begun + SETTLED) else { return wrong };
            self.clock.move_to(next);
            self.idle().await;
        }
    }

    /// Moves the clock to a time. The source does first what is due before.
    async fn reach(&mut self, time: Instant) {
        self.idle().await;
        while let Some(next) = self.clock.waits().into_iter().min().filter(|next| *next < time) {
            self.clock.move_to(next);
            self.idle().await;
        }
        self.clock.move_to(time);
        self.idle().await;
    }

    /// Waits until the source has handled all that was sent, and takes its reports.
    async fn idle(&mut self) {
        let (begun, mut idle) = (Instant::now(), 0);
        while idle < IDLE {
            assert!(begun.elapsed() < AT_WORK, "the source does not come to rest");
            sleep(MS).await;
            idle += 1;
            if self.clock.waits().iter().filter(|deadline| **deadline > self.clock.now()).count() < WAITS {
                idle = 0;
            }
            while let Ok(report) = self.reports.try_recv() {
                if let Report::Snapshot { snapshot, .. } = report {
                    self.published = snapshot;
                }
                idle = 0;
            }
        }
    }
}

/// Returns how the backends that get connections differ from those that may get them, of all apps or of a named one.
fn differences(snapshot: &Snapshot, expected: &BTreeMap<String, Traffic>, named: Option<&str>) -> Vec<String> {
    let mut differences = Vec::new();
    let mut published: BTreeMap<String, BTreeSet<Place>> = BTreeMap::new();
    for (key, service) in &snapshot.services {
        let of = |state| {
            let backends = service.backends.iter().filter(move |it| it.state == state);
            backends.map(|it| (it.task.clone(), it.address.to_string(), u64::from(it.port))).collect::<BTreeSet<_>>()
        };
        let active = of(State::Active);
        let traffic = if active.is_empty() { of(State::Draining) } else { active };
        published.insert(format!("{key}"), traffic);
    }
    let none = BTreeSet::new();
    for (key, Traffic { apps, must, last_resort, failing, uncertain }) in expected {
        if named.is_some_and(|named| !apps.contains(named)) {
            continue;
        }
        let Some(gets) = published.get(key).or(Some(&none)) else { continue };
        let gets = &gets.difference(uncertain).cloned().collect::<BTreeSet<_>>();
        let wrong = if must.is_empty() {
            gets.iter().any(|it| !last_resort.contains(it) && !failing.contains(it))
                || gets.is_empty() && !last_resort.is_empty()
        } else {
            gets != must
        };
        if wrong {
            differences.push(format!(
                "{key}: gets connections: {gets:?}; must get them: {must:?}; last resort: {last_resort:?}"
            ));
        }
    }
    for key in published.keys().filter(|key| !expected.contains_key(*key) && !published[*key].is_empty()) {
        if named.is_some() {
            continue;
        }
        differences.push(format!("{key}: is served, but no app has it"));
    }
    differences
}

macro_rules! recordings {
    ($($test:ident: $name:literal,)*) => {$(
        #[tokio::test]
        async fn $test() {
            let differences = replay($name).await;
            assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
        }
    )*};
}

recordings! {
    marathon_1_11_on_real_mesos: "marathon-1.11.26_real-mesos",
    marathon_1_11_beside_a_standby: "marathon-1.11.26_ha-simulated-agents",
    marathon_1_11_kills_and_restarts: "marathon-1.11.26_kills-and-restarts",
    marathon_1_11_checks_unreachable_and_pods: "marathon-1.11.26_checks-unreachable-pods",
    marathon_1_8: "marathon-1.8.244_simulated-agents",
    marathon_1_6: "marathon-1.6.590_simulated-agents",
    marathon_1_5: "marathon-1.5.15_simulated-agents",
}
