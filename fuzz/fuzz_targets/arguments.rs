//! Any command line: parsing does not panic; an invalid one gives one line for each mistake, and exit code 2.
#![no_main]

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

use libfuzzer_sys::fuzz_target;
use proxymatic_user::cli::parse_check::{ParseCheck, check};

/// Valid words, about half of all arguments.
const WORDS: &[&str] = &[
    "run",
    "plan",
    "show",
    "list",
    "service",
    "backend",
    "hook",
    "status",
    "detach",
    "help",
    "-j",
    "-p",
    "--help",
    "--version",
    "--marathon",
    "http://h:8080",
    "--registrator",
    "etcd://h:4001/services",
    "--file",
    "x.toml",
    "--refresh-interval",
    "--group-size",
    "--expose-host",
    "--vip-networks",
    "11.0.0.0/8",
    "--service-ports",
    "80,1024-65535",
    "--max-connections",
    "--exclude-cgroup",
    "/a/b",
    "--max-slots",
    "--max-services",
    "--max-backends",
    "--bypass-mark",
    "0x1d",
    "--sample",
    "--bpf-log",
    "--loopback",
    "all",
    "--local-listener",
    "service-wins",
    "root-wins",
    "--cgroup",
    "--bpffs",
    "--socket",
    "--marathon-credentials-file",
];

fuzz_target!(|input: Vec<Result<u8, Vec<u8>>>| {
    let word = |word: Result<u8, Vec<u8>>| match word {
        Ok(nth) => WORDS[usize::from(nth) % WORDS.len()].into(),
        Err(bytes) => OsString::from_vec(bytes),
    };
    let arguments: Vec<_> = std::iter::once("proxymatic".into()).chain(input.into_iter().take(24).map(word)).collect();
    match check(&arguments) {
        ParseCheck::Valid | ParseCheck::Help => {}
        ParseCheck::Usage { code, text } => assert!(code == 2 && !text.trim().is_empty(), "{code} {text:?}"),
        ParseCheck::Invalid(sentences) => {
            assert!(!sentences.is_empty());
            for said in sentences {
                assert!(said.lines().count() == 1 && !said.trim().is_empty(), "{said:?}");
            }
        }
    }
});
