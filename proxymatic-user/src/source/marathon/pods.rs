//! Requests pods. Not every Marathon has them, and not every user may see them: then apps are read all the same.

use std::time::Duration;

use super::{
    api::{Lenient, Listing, PodStatus},
    client::Client,
};
use crate::source::failure::{Failure, seconds};

/// The longest time for the request. Apps wait for it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The pods of the last response.
#[derive(Debug, Default)]
pub(super) struct Pods {
    last: Option<Vec<Lenient<PodStatus>>>,
}

impl Pods {
    /// Adds every pod to the listing. If the request fails, these are the pods of the last response, with the reason.
    pub(super) async fn fetch(&mut self, client: &Client, listing: &mut Listing) {
        let response = match tokio::time::timeout(TIMEOUT, client.pods()).await {
            Ok(response) => response,
            Err(_) => {
                Err(Failure::without_url("Marathon", format!("did not list its pods within {}", seconds(TIMEOUT))))
            }
        };
        (listing.pods, listing.pods_unknown) = self.merge(response);
    }

    /// Notes a pod that was read alone.
    pub(super) fn replace(&mut self, pod: &PodStatus) {
        let all = self.last.get_or_insert_default();
        let known = all.iter_mut().find(|it| matches!(it, Lenient::Good(it) if it.id == pod.id));
        match known {
            Some(known) => *known = Lenient::Good(pod.clone()),
            None => all.push(Lenient::Good(pod.clone())),
        }
    }

    /// Returns the pods, and why they are not those of this response.
    ///
    /// A Marathon that has never listed pods may answer 404, because it is older than pods. From a Marathon that has
    /// listed some, a 404 is a failure.
    fn merge(
        &mut self,
        response: Result<Vec<Lenient<PodStatus>>, Failure>,
    ) -> (Vec<Lenient<PodStatus>>, Option<String>) {
        match (response, &self.last) {
            (Ok(pods), _) => {
                self.last = (!pods.is_empty()).then(|| pods.clone());
                (pods, None)
            }
            (Err(failure), None) if failure.not_found => (Vec::new(), None),
            (Err(failure), None) => (Vec::new(), Some(format!("{failure}; until it does, no pod is served"))),
            (Err(failure), Some(last)) => {
                (last.clone(), Some(format!("{failure}; until it does, pods are served as they were last known")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_stay_as_they_were_while_the_request_fails() {
        let failure = |missing| Err(Failure { not_found: missing, ..Failure::without_url("http://h", "failed") });
        let pod = || Lenient::Bad { id: Some("/p".into()), reason: String::new() };
        let mut pods = Pods::default();
        let mut noted = |response| {
            let (pods, unknown) = pods.merge(response);
            (pods.len(), unknown.unwrap_or_default())
        };
        assert_eq!(noted(failure(true)), (0, String::new()), "a Marathon older than pods");
        assert_eq!(noted(failure(false)), (0, "http://h failed; until it does, no pod is served".into()));
        assert_eq!(noted(Ok(vec![pod()])), (1, String::new()));
        for missing in [true, false] {
            let (left, reason) = noted(failure(missing));
            assert!(left == 1 && reason.ends_with("as they were last known"), "{missing}: {reason}");
        }
        assert_eq!(noted(Ok(Vec::new())), (0, String::new()));
        assert_eq!(noted(failure(true)), (0, String::new()));
    }
}
