//! Tests of the program `marathon-sim`. They also make `cargo test --workspace` build it for the tests that start it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn program_answers_until_sigterm_and_exits_with_0() -> anyhow::Result<()> {
    let mut program = Command::new(env!("CARGO_BIN_EXE_marathon-sim"))
        .args(["--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(program.stdout.take().unwrap()).read_line(&mut line)?;
    let address = line.trim().strip_prefix("marathon-sim listening on http://").unwrap();
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET /ping HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("pong"), "{response}");
    kill(Pid::from_raw(program.id().try_into()?), Signal::SIGTERM)?;
    assert!(program.wait()?.success());
    Ok(())
}
