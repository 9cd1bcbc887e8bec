//! The HTTP client of all sources: TLS, timeouts, bounded bodies, credentials, and endpoints that are tried in turn.
//!
//! The client follows no redirect: a redirect to another host must not take the credentials along.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hyper::body::Bytes;
use reqwest::{Certificate, RequestBuilder, StatusCode, Url, header::AUTHORIZATION, redirect::Policy};

use super::{
    credentials::Credentials,
    endpoint_order::EndpointOrder,
    failure::{CONNECT_TIMEOUT, Failure, Server, root_cause},
    tls,
};

/// How long a connection is idle before the kernel checks that the server still exists.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// An HTTP client for one kind of server.
#[derive(Debug)]
pub(super) struct HttpClient {
    inner: reqwest::Client,
    server: &'static Server,
}

/// The authorization of a request.
pub(super) enum RequestAuth<'a, T> {
    None,
    Basic(&'a Credentials),
    Token(&'a T),
}

impl<T> Clone for RequestAuth<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for RequestAuth<'_, T> {}

/// A login that exchanges credentials for tokens.
pub(super) trait TokenSource {
    type Token;

    /// Returns a token, and logs in if there is none; `None` if the server needs no token.
    async fn token(&self, http: &HttpClient) -> Result<Option<Self::Token>, Failure>;

    /// Returns the header `Authorization` for a token.
    fn header(token: &Self::Token) -> String;

    /// Notes the status of a response to a request with this token. Returns whether to send the request once more, with
    /// another token.
    async fn used(&self, token: &Self::Token, status: StatusCode) -> bool;
}

impl HttpClient {
    /// Creates a client. `ca` are the trusted authorities, `None` for those of the system. `is_tls` is whether any URL
    /// needs them.
    ///
    /// # Errors
    /// The client cannot be created; the text is the rest of a sentence.
    pub(super) fn new(server: &'static Server, ca: Option<&[Certificate]>, is_tls: bool) -> Result<Self, String> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("proxymatic/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(KEEPALIVE);
        if let Some(timeout) = server.read_timeout {
            builder = builder.read_timeout(timeout);
        }
        let inner = tls::set_up(builder, ca, is_tls).build();
        let inner = inner.map_err(|error| format!("cannot be asked: {error}: {}", root_cause(&error)))?;
        Ok(Self { inner, server })
    }

    pub(super) fn get(&self, url: &Url) -> RequestBuilder {
        self.inner.get(url.clone())
    }

    pub(super) fn post(&self, url: &Url) -> RequestBuilder {
        self.inner.post(url.clone())
    }

    /// Sends a request.
    pub(super) async fn send(&self, url: &Url, request: RequestBuilder) -> Result<Response, Failure> {
        let inner = request.send().await.map_err(|error| Failure::request(url, &error, self.server))?;
        Ok(Response { url: url.clone(), server: self.server, inner })
    }

    /// Sends a request with this authorization. If the server refuses a token, the request is sent once more with another.
    pub(super) async fn send_as<T: TokenSource>(
        &self,
        url: &Url,
        request: RequestBuilder,
        auth: RequestAuth<'_, T>,
    ) -> Result<Response, Failure> {
        let tokens = match auth {
            RequestAuth::None => return self.send(url, request).await,
            RequestAuth::Basic(Credentials { user, password }) => {
                return self.send(url, request.basic_auth(user, Some(password))).await;
            }
            RequestAuth::Token(tokens) => tokens,
        };
        let again = request.try_clone();
        let (response, repeat) = self.send_with_token(url, request, tokens).await?;
        match again {
            Some(again) if repeat => self.send_with_token(url, again, tokens).await.map(|(response, _)| response),
            Some(_) | None => Ok(response),
        }
    }

    /// Sends a request with a token. Returns the response, and whether to send the request once more.
    async fn send_with_token<T: TokenSource>(
        &self,
        url: &Url,
        request: RequestBuilder,
        tokens: &T,
    ) -> Result<(Response, bool), Failure> {
        let Some(token) = tokens.token(self).await? else { return Ok((self.send(url, request).await?, false)) };
        let response = self.send(url, request.header(AUTHORIZATION, T::header(&token))).await?;
        let repeat = tokens.used(&token, response.status()).await;
        Ok((response, repeat))
    }
}

/// A response whose body has not been read yet.
#[derive(Debug)]
pub(super) struct Response {
    url: Url,
    server: &'static Server,
    inner: reqwest::Response,
}

impl Response {
    pub(super) fn status(&self) -> StatusCode {
        self.inner.status()
    }

    /// Returns the value of a header, if it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// Returns the next bytes of the body; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        self.inner.chunk().await.map_err(|error| Failure::request(&self.url, &error, self.server))
    }

    /// Returns the whole body, of at most so many bytes.
    pub(super) async fn body(mut self, most: usize) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > most {
                return Err(Failure::new(&self.url, format!("sent a response of more than {} MiB", most >> 20)));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// The endpoints of a server, by their index in the configuration.
#[derive(Debug)]
pub(super) struct Endpoints(Mutex<EndpointOrder>);

impl Endpoints {
    pub(super) fn new(count: usize) -> Self {
        Self(Mutex::new(EndpointOrder::new(count)))
    }

    /// Returns the attempts of one request, one for each endpoint.
    pub(super) fn attempts(&self) -> Attempts<'_> {
        let order = self.lock().order().into_iter();
        Attempts { endpoints: self, order, current: None, failures: Vec::new() }
    }

    /// Notes that an endpoint responded, and the leader that it named: the name, and the endpoint if it is one of them.
    pub(super) fn responded(&self, index: usize, leader: Option<(String, Option<usize>)>) {
        self.lock().responded(index, leader, Instant::now());
    }

    /// Returns the last leader that a response named.
    pub(super) fn leader(&self) -> Option<String> {
        self.lock().leader().map(str::to_owned)
    }

    fn lock(&self) -> MutexGuard<'_, EndpointOrder> {
        // Nothing panics while it is held; if something did, the order would still be an order.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The attempts of one request at the endpoints in turn, until one succeeds.
#[derive(Debug)]
pub(super) struct Attempts<'a> {
    endpoints: &'a Endpoints,
    order: std::vec::IntoIter<usize>,
    current: Option<usize>,
    failures: Vec<Failure>,
}

impl Attempts<'_> {
    /// Returns the endpoint of the next attempt; `None` after all have failed.
    pub(super) fn next(&mut self) -> Option<usize> {
        self.current = self.order.next();
        self.current
    }

    /// Notes that the attempt failed. An endpoint that answers that something does not exist is as good as before.
    pub(super) fn failed(&mut self, failure: Failure) {
        if let Some(index) = self.current.filter(|_| !failure.not_found) {
            self.endpoints.lock().failed(index, Instant::now());
        }
        self.failures.push(failure);
    }

    /// Returns one failure for all attempts.
    pub(super) fn failure(self) -> Failure {
        Failure::join(self.failures)
    }
}
