//! When the agent writes the state file, and what it does if that fails.

use std::time::Instant;

use proxymatic_user::{
    agent::{Agent, Event},
    dataplane::Faults,
    source::SourceId,
    state::Job,
};
use tokio::sync::mpsc;

use crate::{
    MINUTE, SECOND, answer, empty,
    scenario::{Driven, NO_FAULTS, with_faults_and_without},
    served, snapshot, ticks,
};

/// Starts an agent with a state file, and returns the receiver of the jobs.
fn keeping(faults: Faults) -> (Driven, mpsc::Receiver<Job>) {
    let (jobs, written) = mpsc::channel(1);
    let agent = Agent::adopt(empty(faults), &[SourceId::Marathon]).unwrap();
    (Driven::new(agent.with_state_file(jobs, None)), written)
}

/// Lets seconds pass, with this outcome for each write. Returns the seconds at which one began.
fn written_in(
    agent: &mut Driven,
    written: &mut mpsc::Receiver<Job>,
    now: &mut Instant,
    seconds: u32,
    outcome: &Result<(), String>,
) -> Vec<u32> {
    let mut at = Vec::new();
    for second in 1..=seconds {
        ticks(agent, now, 1);
        if written.try_recv().is_ok() {
            at.push(second);
            agent.handle(Event::StateSaved(outcome.clone()), *now);
        }
    }
    at
}

#[test]
fn answer_is_written_soon_after_a_change_but_not_too_often() {
    with_faults_and_without(|faults| {
        let (mut agent, mut written) = keeping(faults);
        let mut now = Instant::now();
        assert_eq!(written_in(&mut agent, &mut written, &mut now, 10, &Ok(())), [0; 0], "no source has answered");
        let first = snapshot(&[(1, "/web", &[1])]);
        agent.handle(answer(SourceId::Marathon, first.clone(), now), now);
        agent.handle(Event::Tick, now + SECOND);
        now += SECOND;
        let job = written.try_recv().unwrap();
        assert_eq!(
            (job.answers[&SourceId::Marathon].age, &job.answers[&SourceId::Marathon].snapshot),
            (SECOND, &first)
        );
        // The write is under way.
        agent.handle(answer(SourceId::Marathon, snapshot(&[(1, "/web", &[2])]), now), now);
        ticks(&mut agent, &mut now, 30);
        assert!(written.try_recv().is_err(), "one at a time: the disk is slow");
        assert!(agent.status(now).warnings[0].reason.contains("is not done; look at its disk"));
        agent.handle(Event::StateSaved(Ok(())), now);
        assert_eq!(agent.status(now).warnings, []);
        assert_eq!(written_in(&mut agent, &mut written, &mut now, 10, &Ok(())), [1]);
        for round in 0..20_u8 {
            agent.handle(answer(SourceId::Marathon, snapshot(&[(1, "/web", &[10 + round])]), now), now);
            let at = written_in(&mut agent, &mut written, &mut now, 1, &Ok(()));
            assert!(at.is_empty() || round % 5 == 0, "one a second is too often: {round}");
        }
        // The same answer again and again.
        let last = snapshot(&[(1, "/web", &[99])]);
        agent.handle(answer(SourceId::Marathon, last.clone(), now), now);
        assert_eq!(written_in(&mut agent, &mut written, &mut now, 20, &Ok(())).len(), 1);
        let mut again = Vec::new();
        for _ in 0..60 {
            agent.handle(answer(SourceId::Marathon, last.clone(), now), now);
            again.extend(written_in(&mut agent, &mut written, &mut now, 10, &Ok(())));
        }
        assert_eq!(again.len(), 2, "in ten minutes");
    });
}

#[test]
fn stopping_agent_writes_once_more() {
    with_faults_and_without(|faults| {
        let (mut agent, mut written) = keeping(faults);
        let now = Instant::now();
        agent.handle(answer(SourceId::Marathon, snapshot(&[(1, "/web", &[1])]), now), now);
        agent.handle(Event::Tick, now);
        assert!(written.try_recv().is_ok(), "the write is under way");
        assert!(!agent.handle(Event::Stop, now + MINUTE));
        assert_eq!(written.try_recv().unwrap().answers[&SourceId::Marathon].age, MINUTE);
    });
    let (mut silent, mut written) = keeping(NO_FAULTS);
    silent.handle(Event::Stop, Instant::now());
    assert!(written.try_recv().is_err(), "an agent without an answer leaves the file as it is");
}

#[test]
fn failed_write_is_a_warning_and_is_retried_every_30_s() {
    with_faults_and_without(|faults| {
        let (mut agent, mut written) = keeping(faults);
        let mut now = Instant::now();
        agent.handle(answer(SourceId::Marathon, snapshot(&[(1, "/web", &[1])]), now), now);
        let full = Err("--state-file /f cannot be written: No space left on device".to_owned());
        assert_eq!(written_in(&mut agent, &mut written, &mut now, 65, &full), [1, 31, 61]);
        agent.handle(answer(SourceId::Marathon, snapshot(&[(1, "/web", &[2])]), now), now);
        assert_eq!(served(&agent), ["1 /web.2"]);
        let warnings = agent.status(now).warnings;
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].app == "state file" && warnings[0].reason.contains("No space left"), "{warnings:?}");
        assert_eq!(written_in(&mut agent, &mut written, &mut now, 60, &Ok(())), [26]);
        assert_eq!(agent.status(now).warnings, []);
    });
}

#[test]
fn unusable_file_is_a_warning_until_it_is_written() {
    let (jobs, mut written) = mpsc::channel(1);
    let agent = Agent::adopt(empty(NO_FAULTS), &[SourceId::Marathon]).unwrap();
    let mut agent =
        Driven::new(agent.with_state_file(jobs, Some("--state-file /f is not used: its checksum is wrong".into())));
    let mut now = Instant::now();
    assert!(agent.status(now).warnings[0].reason.contains("checksum"));
    agent.handle(answer(SourceId::Marathon, snapshot(&[(1, "/web", &[1])]), now), now);
    assert_eq!(written_in(&mut agent, &mut written, &mut now, 3, &Ok(())), [1]);
    assert_eq!(agent.status(now).warnings, []);
}

#[test]
fn drain_is_written_soon_after_a_change() {
    with_faults_and_without(|faults| {
        let (mut agent, mut written) = keeping(faults);
        let mut now = Instant::now();
        agent.handle(answer(SourceId::Marathon, snapshot(&[(1, "/web", &[1, 2])]), now), now);
        // Refused writes are tried again meanwhile.
        written_in(&mut agent, &mut written, &mut now, 20, &Ok(()));
        let (id, generation) = {
            let backends = agent.tables().backends();
            let (id, entry) = backends.iter().find(|(_, entry)| entry.task == "/web.1").unwrap();
            (*id, entry.backend.generation)
        };
        for drains in [true, false] {
            let drained = &mut agent.plane_mut().drained;
            if drains {
                drained.insert(id, generation)
            } else {
                drained.remove(&id)
            };
            let mut last = None;
            for _ in 0..20 {
                ticks(&mut agent, &mut now, 1);
                if let Ok(job) = written.try_recv() {
                    last = Some(job.drained.into_iter().map(|it| it.task).collect::<Vec<_>>());
                    agent.handle(Event::StateSaved(Ok(())), now);
                }
            }
            assert_eq!(last, Some(if drains { vec!["/web.1".to_owned()] } else { Vec::new() }), "{drains}");
        }
    });
}
