//! Separates answers from errors, and says what a user can do about an error.

use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode};

use super::super::auth::{Identity, Scopes};
use super::super::error::{Error, StatusError, is_transient};
use super::super::hosts;
use super::super::message::ErrorMessage;
use super::super::repository::Registry;
use super::attempt::{Call, is_basic, is_scope_too_narrow};
use super::failure::FailedRequest;
use super::mask::Secrets;
use super::request::{Answer, RequestTarget};
use super::retry::retry_after;

impl Registry {
    /// Separates answers from errors. `sent` is the authorization that was sent.
    pub(super) fn judge(
        &self,
        call: &Call<'_>,
        answer: Answer,
        sent: Option<&HeaderValue>,
    ) -> Result<Answer, FailedRequest> {
        let request = &call.request;
        let is_registry = self.door.is_registry_url(&answer.url);
        if is_registry && self.is_no_registry(call, &answer) {
            return Err(self.door.not_a_registry(&answer).into());
        }
        if answer.status.is_success() || request.also.contains(&answer.status) {
            return Ok(answer);
        }
        let message = self.message(call, &answer, sent);
        let refused = matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
            || (answer.status.is_server_error() && message.is_about_access());
        let not_allowed =
            is_registry && refused && self.is_not_allowed(call, &answer, &message, sent);
        let hint = match answer.status {
            _ if refused => self.login_hint(call, &message, not_allowed),
            _ if answer.status.is_redirection() => self.redirect_hint(&answer),
            status => self.hint(call, status, &message),
        };
        let proxy = self.door.proxy_before(&answer.url).filter(|_| !self.door.is_registry());
        let hint = match proxy {
            Some(proxy) => Some(format!("the answer may be that of the proxy {proxy}")),
            None => hint,
        };
        // The login failed, not the request.
        let doing = match answer.status {
            StatusCode::UNAUTHORIZED if is_registry && !not_allowed => {
                format!("log in to {}", self.host())
            }
            _ => request.doing.clone(),
        };
        Err(FailedRequest {
            transient: is_transient(answer.status) && !message.is_final(answer.status),
            retry_after: retry_after(&answer.headers),
            server: Some(self.door.server(&answer.url)),
            connected: true,
            about_trust: false,
            error: Error::Status(Box::new(StatusError {
                doing,
                url: answer.url.into(),
                status: answer.status,
                message,
                hint,
            })),
        })
    }

    /// The registry's message, without secrets.
    fn message(
        &self,
        call: &Call<'_>,
        answer: &Answer,
        sent: Option<&HeaderValue>,
    ) -> ErrorMessage {
        let (ours, sent) = (self.auth.secrets(call.repository), Secrets::sent(sent));
        ErrorMessage::parse(&answer.text()).masked(|text| sent.mask(&ours.mask(text)))
    }

    /// Whether an answer shows that the server is not a registry. No earlier answer was one of a
    /// registry, and this one is a web page, a redirect in answer to an upload, or a 404 for
    /// something that every registry has.
    fn is_no_registry(&self, call: &Call<'_>, answer: &Answer) -> bool {
        if self.door.is_registry() || hosts::says_not_found(self.host()) {
            return false;
        }
        let is_not_found = answer.status == StatusCode::NOT_FOUND
            && !call.request.also.contains(&StatusCode::NOT_FOUND);
        match answer.status.as_u16() {
            200..=299 | 405 | 501 => answer.is_web_page(),
            300..=399 => true,
            404 => is_not_found && ErrorMessage::parse(&answer.text()).errors.is_empty(),
            _ => false,
        }
    }

    /// Whether a 401 or 403 is about the user's permission and not about the login. With a
    /// password, the registry's words decide. With a token, the token server has already accepted
    /// the login.
    fn is_not_allowed(
        &self,
        call: &Call<'_>,
        answer: &Answer,
        message: &ErrorMessage,
        sent: Option<&HeaderValue>,
    ) -> bool {
        let Some(sent) = sent.and_then(|value| value.to_str().ok()) else {
            return false;
        };
        let is_user = matches!(self.auth.identity(call.repository), Identity::User(_));
        let says_so = answer.status == StatusCode::FORBIDDEN
            || is_scope_too_narrow(answer)
            || message.has_code("DENIED");
        match is_basic(sent) {
            true => is_user && says_so && !message.is_about_login(),
            false => is_user,
        }
    }

    /// The same, for an answer whose status alone does not show it.
    pub(super) fn is_about_rights(&self, call: &Call<'_>, answer: &Answer) -> bool {
        let message = ErrorMessage::parse(&answer.text());
        let is_user = matches!(self.auth.identity(call.repository), Identity::User(_));
        let says_so = is_scope_too_narrow(answer) || message.has_code("DENIED");
        is_user && says_so && !message.is_about_login()
    }

    /// The hint for a 401 or 403.
    fn login_hint(
        &self,
        call: &Call<'_>,
        message: &ErrorMessage,
        not_allowed: bool,
    ) -> Option<String> {
        let (host, repository) = (self.host(), call.repository);
        if hosts::says_not_found(host) && message.has_code("NAME_UNKNOWN") {
            return Some(hosts::create(host, repository));
        }
        let action = match call.scopes.contains(&Scopes::push(repository)) {
            true => "push to",
            false => "pull from",
        };
        Some(match self.auth.identity(call.repository) {
            Identity::User(user) if not_allowed && message.is_about_limits() => format!(
                "asked {user}; the login was accepted, and this is a limit or a rule of the \
                 registry: change it there, or ask those who run it"
            ),
            Identity::User(user) if not_allowed => format!(
                "asked {user}; the login was accepted, but this user may not {action} \
                 {host}/{repository}; {}",
                hosts::permission(host, repository)
            ),
            // This is the command `login`.
            Identity::User(user) if repository.is_empty() => format!(
                "asked {user}, and the registry does not take them; check the user name and the \
                 password, or token{}",
                hosts::own_log_in(host).map(|how| format!("; {how}")).unwrap_or_default()
            ),
            Identity::User(user) => format!(
                "asked {user}; either {host} does not take this login, or this user may not {action} \
                 {host}/{repository}; {}",
                hosts::log_in(host)
            ),
            Identity::Anonymous(why) => format!("asked {why}; {}", hosts::log_in(host)),
            // The registry refuses every user and says why, so a login would not help.
            Identity::NotAsked if message.has_code("DENIED") => {
                format!("{host} did not ask for a login, and refuses this to everybody")
            }
            Identity::NotAsked => format!(
                "asked anonymously; {host} did not ask for a login; {}",
                hosts::log_in(host)
            ),
        })
    }

    /// The hint for a redirect of a POST or PUT, which is not followed.
    fn redirect_hint(&self, answer: &Answer) -> Option<String> {
        let to = answer.redirect()?;
        Some(format!(
            "it redirects this request to {to}, and with status {} a client may not send an upload \
             there; if that is the registry, name its host in the destination",
            answer.status.as_u16()
        ))
    }

    fn hint(&self, call: &Call<'_>, status: StatusCode, message: &ErrorMessage) -> Option<String> {
        let host = self.host();
        let request = &call.request;
        let is_write = matches!(request.to, RequestTarget::Path(_))
            && matches!(request.method, Method::POST | Method::PUT);
        match status {
            StatusCode::NOT_FOUND
                if message.has_code("NAME_UNKNOWN") || hosts::says_not_found(host) =>
            {
                Some(hosts::create(host, call.repository))
            }
            StatusCode::METHOD_NOT_ALLOWED if is_write => Some(hosts::read_only(host)),
            StatusCode::PAYLOAD_TOO_LARGE => Some(
                "a gateway before the registry limits the size of a request; raise its limit"
                    .to_owned(),
            ),
            StatusCode::TOO_MANY_REQUESTS => {
                Some("the registry limits the rate of requests; try later, or log in".to_owned())
            }
            _ => None,
        }
    }
}
