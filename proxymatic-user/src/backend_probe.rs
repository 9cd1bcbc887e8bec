//! Probes backends by TCP connect: ejected ones until they answer, new ones once for each order.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    net::TcpSocket,
    sync::{Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};

/// The timeout of a probe.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The interval of probes at first.
const FIRST_INTERVAL: Duration = Duration::from_millis(500);
/// How long the first interval applies.
const FIRST_PHASE: Duration = Duration::from_secs(10);
/// The interval of probes after that.
const LATER_INTERVAL: Duration = Duration::from_millis(750);
/// How many probes may run at once.
const MAX_CONCURRENT: usize = 64;

/// A request to start or stop probing a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Probe this backend at once and repeatedly, until it answers.
    Watch {
        /// The id of the backend.
        backend: u32,
        /// The generation of the id.
        generation: u32,
        /// The address and port of the backend.
        to: SocketAddr,
    },
    /// Stop probing it.
    Leave {
        /// The id of the backend.
        backend: u32,
    },
    /// Probe this address once, and report the result.
    Once {
        /// The number of the probe.
        probe: u64,
        /// The address and port of the backend.
        to: SocketAddr,
    },
}

/// The result of a probe that was ordered by [`Order::Once`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    /// The number of the probe.
    pub probe: u64,
    /// The result.
    pub outcome: Outcome,
}

/// The result of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend accepted the connection.
    Answered,
    /// The backend refused the connection.
    Refused,
    /// Nothing came back, or the network reported the backend as unreachable.
    Unanswered,
    /// This host could not send the probe.
    Failed,
}

impl From<Result<(), io::Error>> for Outcome {
    fn from(result: Result<(), io::Error>) -> Self {
        match result.map_err(|error| error.kind()) {
            Ok(()) => Self::Answered,
            Err(io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset) => Self::Refused,
            Err(io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
                Self::Unanswered
            }
            Err(_) => Self::Failed,
        }
    }
}

/// A backend that answered a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The id of the backend.
    pub backend: u32,
    /// The generation of the id.
    pub generation: u32,
}

/// Carries out orders until their channel closes. `mark` is the SO_MARK of the probes, 0 for none: hooks bypass
/// sockets with the bypass mark, and all sockets of this process.
pub async fn follow(
    mut orders: mpsc::UnboundedReceiver<Order>,
    answers: mpsc::Sender<Answered>,
    results: mpsc::Sender<Probed>,
    mark: u32,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONCURRENT));
    let mut probed: BTreeMap<u32, AbortHandle> = BTreeMap::new();
    while let Some(order) = orders.recv().await {
        probed.retain(|_, task| !task.is_finished());
        match order {
            Order::Watch { backend, generation, to } => {
                let probes = probe_until_answer(
                    Answered { backend, generation },
                    to,
                    mark,
                    Arc::clone(&permits),
                    answers.clone(),
                );
                if let Some(before) = probed.insert(backend, tokio::spawn(probes).abort_handle()) {
                    before.abort();
                }
            }
            Order::Leave { backend } => {
                if let Some(task) = probed.remove(&backend) {
                    task.abort();
                }
            }
            // The agent orders at most 200 a second, each of at most a second.
            Order::Once { probe: number, to } => {
                let results = results.clone();
                tokio::spawn(async move {
                    let outcome = probe(to, mark).await.into();
                    // Fails only while this process ends.
                    let _ = results.send(Probed { probe: number, outcome }).await;
                });
            }
        }
    }
}

/// Probes until the backend answers. A probe does not wait for the one before it, because a lost packet would delay
/// it by the whole timeout.
async fn probe_until_answer(
    backend: Answered,
    to: SocketAddr,
    mark: u32,
    permits: Arc<Semaphore>,
    answers: mpsc::Sender<Answered>,
) {
    let began = Instant::now();
    let mut probes = JoinSet::new();
    let mut clock = interval(FIRST_INTERVAL);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick() => {
                // At most three wait for a permit, so that probes of one backend do not queue up.
                if probes.len() < 3 {
                    let permits = Arc::clone(&permits);
                    probes.spawn(async move {
                        let _permit = permits.acquire_owned().await;
                        probe(to, mark).await
                    });
                }
                if clock.period() != LATER_INTERVAL && began.elapsed() >= FIRST_PHASE {
                    clock = interval(LATER_INTERVAL);
                    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    clock.reset();
                }
            }
            Some(outcome) = probes.join_next() => {
                if matches!(outcome, Ok(Ok(()))) {
                    let _ = answers.send(backend).await;
                    return;
                }
            }
        }
    }
}

/// Connects once and closes the connection.
async fn probe(to: SocketAddr, mark: u32) -> io::Result<()> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if mark != 0 {
        setsockopt(&socket, sockopt::Mark, &mark)?;
    }
    timeout(TIMEOUT, socket.connect(to)).await.map_err(|_| io::ErrorKind::TimedOut)?.map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    const BACKEND: Answered = Answered { backend: 7, generation: 3 };

    fn prober() -> (mpsc::UnboundedSender<Order>, mpsc::Receiver<Answered>) {
        let (orders, given) = mpsc::unbounded_channel();
        let (answers, answered) = mpsc::channel(8);
        tokio::spawn(follow(given, answers, mpsc::channel(1).0, 0));
        (orders, answered)
    }

    #[tokio::test]
    async fn single_probe_reports_whether_the_backend_listens() {
        let (orders, given) = mpsc::unbounded_channel();
        let (results, mut result) = mpsc::channel(8);
        tokio::spawn(follow(given, mpsc::channel(1).0, results, 0));
        let (socket, to) = closed();
        orders.send(Order::Once { probe: 1, to }).unwrap();
        assert_eq!(result.recv().await, Some(Probed { probe: 1, outcome: Outcome::Refused }));
        let listener = socket.listen(8).unwrap();
        orders.send(Order::Once { probe: 2, to }).unwrap();
        assert_eq!(result.recv().await, Some(Probed { probe: 2, outcome: Outcome::Answered }));
        listener.accept().await.unwrap();
        assert!(timeout(2 * FIRST_INTERVAL, listener.accept()).await.is_err(), "probed more than once");
    }

    fn watch(to: SocketAddr) -> Order {
        Order::Watch { backend: BACKEND.backend, generation: BACKEND.generation, to }
    }

    /// A port without a listener, kept bound for the caller.
    fn closed() -> (TcpSocket, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[tokio::test]
    async fn backend_that_answers_is_reported_once_and_left_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (orders, mut answered) = prober();
        orders.send(watch(listener.local_addr().unwrap())).unwrap();
        assert_eq!(answered.recv().await, Some(BACKEND));
        listener.accept().await.unwrap();
        // If this machine stalled, the next probe had begun before the answer.
        while timeout(FIRST_INTERVAL / 2, listener.accept()).await.is_ok() {}
        assert!(timeout(2 * FIRST_INTERVAL, listener.accept()).await.is_err(), "probed again after it had answered");
    }

    #[tokio::test]
    async fn backend_that_returns_is_found_within_a_second() {
        let mut found = Vec::new();
        // On a busy machine an answer may come late, but not each of five.
        while found.len() < 5 {
            let (socket, address) = closed();
            let (orders, mut answered) = prober();
            orders.send(watch(address)).unwrap();
            assert!(timeout(2 * FIRST_INTERVAL, answered.recv()).await.is_err(), "it does not listen yet");
            let _listener = socket.listen(8).unwrap();
            let back = Instant::now();
            assert_eq!(answered.recv().await, Some(BACKEND));
            found.push(back.elapsed());
            if back.elapsed() < Duration::from_secs(1) {
                return;
            }
        }
        panic!("found after {found:?}");
    }

    #[tokio::test]
    async fn backend_is_not_probed_after_leave() {
        let (socket, address) = closed();
        let (orders, mut answered) = prober();
        orders.send(watch(address)).unwrap();
        orders.send(Order::Leave { backend: BACKEND.backend }).unwrap();
        let listener = socket.listen(8).unwrap();
        // The first probe may have started before the order, but no other follows.
        let _ = timeout(FIRST_INTERVAL / 2, listener.accept()).await;
        assert!(timeout(2 * FIRST_INTERVAL, listener.accept()).await.is_err());
        assert!(answered.try_recv().is_err());
    }
}
