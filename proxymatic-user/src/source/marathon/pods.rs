//! Asks for pods, which not every Marathon has.

use super::{
    client::Client,
    failure::Failure,
    wire::{Loose, PodStatus},
};

/// Whether this Marathon has pods, as far as that is known.
#[derive(Debug, Default)]
pub(super) struct Pods {
    seen: bool,
}

impl Pods {
    /// Every pod. A Marathon that has never had any may say that there is no such thing: it is older than pods are.
    /// From one that had, that is no answer.
    pub(super) async fn fetch(&mut self, client: &Client) -> Result<Vec<Loose<PodStatus>>, Failure> {
        self.note(client.pods().await)
    }

    fn note(&mut self, answer: Result<Vec<Loose<PodStatus>>, Failure>) -> Result<Vec<Loose<PodStatus>>, Failure> {
        match answer {
            Err(failure) if failure.missing && !self.seen => Ok(Vec::new()),
            Ok(pods) => {
                self.seen |= !pods.is_empty();
                Ok(pods)
            }
            Err(failure) => Err(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marathon_without_pods_is_told_from_one_that_cannot_say() {
        let failure = |missing| Failure { url: "http://h".into(), what: "failed".into(), missing };
        let pod = || Loose::Bad { id: None, reason: String::new() };
        let mut pods = Pods::default();
        assert!(pods.note(Err(failure(true))).is_ok_and(|it| it.is_empty()));
        assert!(pods.note(Err(failure(false))).is_err());
        assert!(pods.note(Ok(vec![pod()])).is_ok_and(|it| it.len() == 1));
        assert!(pods.note(Err(failure(true))).is_err());
        assert!(pods.note(Ok(Vec::new())).is_ok_and(|it| it.is_empty()));
    }
}
