//! Asks for pods, which not every Marathon has, and not every user may see. That costs pods their news, and apps nothing.

use std::time::Duration;

use super::{
    api::{Lenient, Listing, PodStatus},
    client::Client,
    failure::{Failure, seconds},
};

/// How long apps wait for pods.
const PATIENCE: Duration = Duration::from_secs(30);

/// The pods that were there when they could be had last.
#[derive(Debug, Default)]
pub(super) struct Pods {
    last: Option<Vec<Lenient<PodStatus>>>,
}

impl Pods {
    /// Adds every pod to the listing: those of the last answer, and why, where there is none now.
    pub(super) async fn fetch(&mut self, client: &Client, listing: &mut Listing) {
        let answer = match tokio::time::timeout(PATIENCE, client.pods()).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure {
                url: "Marathon".into(),
                what: format!("did not say within {} which pods there are", seconds(PATIENCE)),
                not_found: false,
            }),
        };
        (listing.pods, listing.pods_unknown) = self.note(answer);
    }

    /// A Marathon that has never said which pods there are may say that there is no such thing: it is older than pods
    /// are. From one that has, that is no answer.
    fn note(&mut self, answer: Result<Vec<Lenient<PodStatus>>, Failure>) -> (Vec<Lenient<PodStatus>>, Option<String>) {
        match (answer, &self.last) {
            (Ok(pods), _) => {
                self.last = (!pods.is_empty()).then(|| pods.clone());
                (pods, None)
            }
            (Err(failure), None) if failure.not_found => (Vec::new(), None),
            (Err(failure), None) => (Vec::new(), Some(format!("{failure}; until it answers no pod is served"))),
            (Err(failure), Some(last)) => {
                (last.clone(), Some(format!("{failure}; until it answers pods are served as they were last known")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_that_cannot_be_had_stay_as_they_were_and_that_is_said() {
        let failure = |missing| Err(Failure { url: "http://h".into(), what: "failed".into(), not_found: missing });
        let pod = || Lenient::Bad { id: Some("/p".into()), reason: String::new() };
        let mut pods = Pods::default();
        let mut noted = |answer| {
            let (pods, unknown) = pods.note(answer);
            (pods.len(), unknown.unwrap_or_default())
        };
        assert_eq!(noted(failure(true)), (0, String::new()), "older than pods are");
        assert_eq!(noted(failure(false)), (0, "http://h failed; until it answers no pod is served".into()));
        assert_eq!(noted(Ok(vec![pod()])), (1, String::new()));
        for missing in [true, false] {
            let (left, said) = noted(failure(missing));
            assert!(left == 1 && said.ends_with("as they were last known"), "{missing}: {said}");
        }
        assert_eq!(noted(Ok(Vec::new())), (0, String::new()));
        assert_eq!(noted(failure(true)), (0, String::new()));
    }
}
