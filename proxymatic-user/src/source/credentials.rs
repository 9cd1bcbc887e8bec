//! Credentials and certificates from files and URLs, for all sources.
//!
//! Files are read once, before any hook is attached. Each error is one sentence.

use std::{fmt, fs, io, os::unix::fs::PermissionsExt as _, path::Path, path::PathBuf};

/// The largest file, in bytes. A bundle of all public authorities has some 200 kB.
const MAX_FILE: u64 = 4 << 20;

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Decodes percent-encoding. Text that is not percent-encoded stays as it is.
pub(crate) fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = match (first, tail) {
            (b'%', [high, low, ..]) => char::from(*high).to_digit(16).zip(char::from(*low).to_digit(16)),
            _ => None,
        };
        match code.and_then(|(high, low)| u8::try_from(high << 4 | low).ok()) {
            Some(byte) => (bytes.push(byte), rest = &tail[2..]),
            None => (bytes.push(*first), rest = tail),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads and parses the file of a flag, if the flag is given. An error is added to `wrong`.
pub(crate) fn read_file<T>(
    flag: &str,
    path: &Option<PathBuf>,
    wrong: &mut Vec<String>,
    parse: fn(&[u8]) -> Result<T, String>,
) -> Option<T> {
    let path = path.as_ref()?;
    match contents(path).and_then(|bytes| parse(&bytes)) {
        Ok(it) => Some(it),
        Err(reason) => {
            wrong.push(format!("{flag} {}: {reason}", path.display()));
            None
        }
    }
}

fn contents(path: &Path) -> Result<Vec<u8>, String> {
    let read = || -> io::Result<Option<Vec<u8>>> {
        let small = fs::metadata(path)?.len() <= MAX_FILE;
        if small { fs::read(path).map(Some) } else { Ok(None) }
    };
    match read() {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(format!("is larger than {} MiB; is it the right file?", MAX_FILE >> 20)),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

/// Returns the user and the password on the first line of a file.
pub(crate) fn parse_credentials(bytes: &[u8]) -> Result<Credentials, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not text; write user:password on its first line")?;
    let line = text.lines().next().unwrap_or_default();
    match line.split_once(':') {
        Some((user, password)) if !user.is_empty() => {
            Ok(Credentials { user: user.to_owned(), password: password.to_owned() })
        }
        _ => Err("has no user:password on its first line".into()),
    }
}

/// Returns a warning if other users can read the file of a secret.
pub(crate) fn permissions_warning(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let sentence = || format!("{0} can be read by others (mode {mode:03o}); chmod 600 {0}", path.display());
    (mode & 0o077 != 0).then(sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_line_has_a_user_and_a_password() {
        for (text, user, password) in [
            ("me:secret\n", "me", "secret"),
            ("me:a:b\r\nmore\n", "me", "a:b"),
            ("me: p ", "me", " p "),
            ("me:", "me", ""),
        ] {
            let Credentials { user: its, password: its_password } = parse_credentials(text.as_bytes()).unwrap();
            assert_eq!((its.as_str(), its_password.as_str()), (user, password));
        }
        for wrong in ["", "me", "\nme:secret", ":secret"] {
            assert!(parse_credentials(wrong.as_bytes()).unwrap_err().contains("user:password on its first line"));
        }
        assert!(parse_credentials(b"\xff:x").unwrap_err().contains("not text"));
    }
}
