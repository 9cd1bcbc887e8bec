//! All backends but one are replaced while clients have connections to them.

use anyhow::Result;
use proxymatic_tests::failure::TestResult;

use super::{ONE_ARMED, ROUTED, Remote, WAYS, both};

const TRANSFERS: usize = 200;

#[test]
fn transfers_200_survive_replacement_of_all_backends_but_one() -> TestResult {
    for way in [ROUTED, ONE_ARMED, WAYS[2]] {
        let lab = way.lab()?;
        let echo = |nth: u8, name| lab.host(2 + nth % 2).echo(7001 + u16::from(nth), name);
        let old = (0..4).zip('a'..).map(|(nth, name)| echo(nth, name)).collect::<Result<Vec<_>>>()?;
        let mut remote = Remote::of(&lab, way, old)?;
        let transfers = remote.transfers(TRANSFERS)?;
        let shares = ['a', 'b', 'c', 'd'].map(|name| transfers.of(name));
        assert!(shares.iter().all(|share| *share > TRANSFERS / 20), "{shares:?}");
        // The backend that stays, and three others. The replaced ones keep running, as tasks do after SIGTERM.
        let mut replaced = remote.echoes;
        let stays = replaced.remove(3);
        let new = (4..7).zip('e'..).map(|(nth, name)| echo(nth, name)).collect::<Result<Vec<_>>>()?;
        remote.echoes = [stays].into_iter().chain(new).collect();
        remote.written.rewrite(&both(&remote.echoes, &[]))?;
        remote.answers_come_from("defg")?;
        transfers.go_on("abcd", 50)?;
        // Only connections to a backend whose process ends may break.
        for echo in &mut replaced {
            echo.process.kill9()?;
        }
        transfers.go_on("d", 50)?;
        remote.answers_come_from("defg")?;
        println!("{way:?}: {shares:?} transfers, none broke but with a process that ended");
        transfers.finish("d")?;
    }
    Ok(())
}
