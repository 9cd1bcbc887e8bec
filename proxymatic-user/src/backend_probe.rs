//! Asks ejected backends whether they answer again, by TCP connect.

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

/// How long a backend may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is asked at first.
const OFTEN: Duration = Duration::from_millis(500);
/// For how long so often.
const AT_FIRST: Duration = Duration::from_secs(10);
/// How often after that.
const SELDOM: Duration = Duration::from_millis(750);
/// How many may be asked at once.
const AT_ONCE: usize = 64;

/// What is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Ask this backend at once and then again and again, until it answers.
    Watch {
        /// Its id.
        backend: u32,
        /// Which of the owners of the id.
        generation: u32,
        /// Where it listens.
        to: SocketAddr,
    },
    /// Ask it no more.
    Leave {
        /// Its id.
        backend: u32,
    },
}

/// A backend has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Its id.
    pub backend: u32,
    /// Which of the owners of the id.
    pub generation: u32,
}

/// Follows orders until there are no more. `mark` is the SO_MARK of its connections, 0 for none: the hooks leave those
/// alone that have it, as all of this process.
pub async fn follow(mut orders: mpsc::UnboundedReceiver<Order>, answers: mpsc::Sender<Answered>, mark: u32) {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut watched: BTreeMap<u32, AbortHandle> = BTreeMap::new();
    while let Some(order) = orders.recv().await {
        watched.retain(|_, watch| !watch.is_finished());
        match order {
            Order::Watch { backend, generation, to } => {
                let watch = watch(Answered { backend, generation }, to, mark, Arc::clone(&turns), answers.clone());
                if let Some(before) = watched.insert(backend, tokio::spawn(watch).abort_handle()) {
                    before.abort();
                }
            }
            Order::Leave { backend } => {
                if let Some(watch) = watched.remove(&backend) {
                    watch.abort();
                }
            }
        }
    }
}

/// Asks until there is an answer. The next question does not wait for the end of the last: one that got lost would
/// delay it by as much as a backend may take.
async fn watch(who: Answered, to: SocketAddr, mark: u32, turns: Arc<Semaphore>, answers: mpsc::Sender<Answered>) {
    let began = Instant::now();
    let mut asked = JoinSet::new();
    let mut clock = interval(OFTEN);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick() => {
                // None waits for a turn behind itself.
                if asked.len() < 3 {
                    let turns = Arc::clone(&turns);
                    asked.spawn(async move {
                        let _turn = turns.acquire_owned().await;
                        ask(to, mark).await
                    });
                }
                if clock.period() != SELDOM && began.elapsed() >= AT_FIRST {
                    clock = interval(SELDOM);
                    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    clock.reset();
                }
            }
            Some(outcome) = asked.join_next() => {
                if matches!(outcome, Ok(Ok(()))) {
                    let _ = answers.send(who).await;
                    return;
                }
            }
        }
    }
}

/// One connect, closed at once.
async fn ask(to: SocketAddr, mark: u32) -> io::Result<()> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if mark != 0 {
        setsockopt(&socket, sockopt::Mark, &mark)?;
    }
    timeout(PATIENCE, socket.connect(to)).await.map_err(io::Error::other)?.map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    const WHO: Answered = Answered { backend: 7, generation: 3 };

    fn prober() -> (mpsc::UnboundedSender<Order>, mpsc::Receiver<Answered>) {
        let (orders, given) = mpsc::unbounded_channel();
        let (answers, answered) = mpsc::channel(8);
        tokio::spawn(follow(given, answers, 0));
        (orders, answered)
    }

    fn watch(to: SocketAddr) -> Order {
        Order::Watch { backend: WHO.backend, generation: WHO.generation, to }
    }

    /// A port on which nobody listens, kept for the caller.
    fn closed() -> (TcpSocket, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[tokio::test]
    async fn a_backend_that_answers_is_told_of_once_and_asked_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (orders, mut answered) = prober();
        orders.send(watch(listener.local_addr().unwrap())).unwrap();
        assert_eq!(answered.recv().await, Some(WHO));
        listener.accept().await.unwrap();
        assert!(timeout(2 * OFTEN, listener.accept()).await.is_err(), "asked again after it had answered");
    }

    #[tokio::test]
    async fn a_backend_that_comes_back_is_found_within_a_second() {
        let (socket, address) = closed();
        let (orders, mut answered) = prober();
        orders.send(watch(address)).unwrap();
        assert!(timeout(2 * OFTEN, answered.recv()).await.is_err(), "it was not there yet");
        let _listener = socket.listen(8).unwrap();
        let back = Instant::now();
        assert_eq!(answered.recv().await, Some(WHO));
        assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
    }

    #[tokio::test]
    async fn one_that_is_left_is_not_asked() {
        let (socket, address) = closed();
        let (orders, mut answered) = prober();
        orders.send(watch(address)).unwrap();
        orders.send(Order::Leave { backend: WHO.backend }).unwrap();
        let listener = socket.listen(8).unwrap();
        // Should the first question have come through before it was left, no other does.
        let _ = timeout(OFTEN / 2, listener.accept()).await;
        assert!(timeout(2 * OFTEN, listener.accept()).await.is_err());
        assert!(answered.try_recv().is_err());
    }
}
