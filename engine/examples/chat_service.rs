//! A chat service: several people write in several chats over HTTP, and nothing is lost over a restart.
//!
//! `cargo run --example chat_service` plays a few seconds of it by itself. To try it by hand:
//!
//! ```text
//! cargo run --example chat_service -- --serve chats.db 127.0.0.1:3000
//!
//! curl -i localhost:3000/chats -H 'content-type: application/json' -d '{"owner": "ada", "title": "tea"}'
//! curl -i localhost:3000/chats/ID/messages -H 'content-type: application/json' -d '{"from": "bob", "text": "hello"}'
//! curl -i localhost:3000/chats/ID
//! curl -i localhost:3000/users/ada/chats
//! curl -i -X DELETE localhost:3000/chats/ID
//! ```
//!
//! A chat is a session, its owner the session's user. A real service takes the names of people from its authentication,
//! and moves old messages elsewhere: a session holds the state of a conversation, 1 MiB by default, not its archive.

use std::{net::SocketAddr, path::Path as FilePath, time::Duration};

use anyhow::{Context as _, bail, ensure};
use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Path, State},
    http::{Method, Request, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sessile::{Engine, Error, Filter, NewSession, Order, Outcome, Query, SessionId};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    task::JoinHandle,
};

/// A chat that nobody writes in for so long is deleted.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 3_600);

#[derive(Debug, Serialize, Deserialize)]
struct Chat {
    title: String,
    messages: Vec<Message>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Message {
    from: String,
    text: String,
}

// The service.

fn routes(engine: Engine) -> Router {
    Router::new()
        .route("/chats", post(create_chat))
        .route("/chats/{id}", get(read_chat).delete(delete_chat))
        .route("/chats/{id}/messages", post(post_message))
        .route("/users/{user}/chats", get(list_chats))
        .with_state(engine)
}

#[derive(Deserialize)]
struct NewChat {
    owner: String,
    title: String,
}

async fn create_chat(State(engine): State<Engine>, Json(new): Json<NewChat>) -> Result<Response, Refusal> {
    let chat = Chat { title: new.title, messages: Vec::new() };
    let session = engine.create(NewSession::new().user(new.owner).data(&chat)).await?;
    let id = session.id().as_str();
    let location = [(header::LOCATION, format!("/chats/{id}"))];
    Ok((StatusCode::CREATED, location, Json(json!({ "id": id }))).into_response())
}

async fn post_message(
    State(engine): State<Engine>,
    Path(id): Path<String>,
    Json(message): Json<Message>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let session = engine.session(id)?;
    // First the touch: it turns away messages to chats that are not there, and costs no disk.
    session.touch().await?;
    // Whoever else writes now is in line before or after: no message is lost. Committed when it returns.
    let number = session
        .update(move |chat: &mut Chat| {
            // Cloned, for an update may run more than once.
            chat.messages.push(message.clone());
            chat.messages.len()
        })
        .await?;
    Ok((StatusCode::CREATED, Json(json!({ "number": number }))))
}

async fn read_chat(State(engine): State<Engine>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let record = engine.session(id)?.get().await?.ok_or(Error::NotFound)?;
    let Chat { title, messages } = record.data()?;
    Ok(Json(json!({
        "owner": record.user(),
        "title": title,
        "messages": messages,
        "touches": record.touch_count(),
        "last_active_at": record.last_active_at().to_string(),
    })))
}

/// The 100 chats that were active last; a cursor, `page.next`, would lead on to more.
async fn list_chats(State(engine): State<Engine>, Path(user): Path<String>) -> Result<Json<Value>, Refusal> {
    let page = engine.list(Query::new(Filter::all().user(user)).order(Order::RecentlyActive)).await?;
    let chats = page.items.iter().map(|chat| {
        let (id, last_active_at) = (chat.id().map(SessionId::as_str), chat.last_active_at().to_string());
        json!({ "id": id, "touches": chat.touch_count(), "last_active_at": last_active_at })
    });
    Ok(Json(json!({ "chats": chats.collect::<Vec<_>>(), "more": page.next.is_some() })))
}

async fn delete_chat(State(engine): State<Engine>, Path(id): Path<String>) -> Result<StatusCode, Refusal> {
    let was_there = engine.session(id)?.delete().await?;
    Ok(if was_there { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND })
}

/// An error of the engine as HTTP knows it. "No such chat" is said only where the engine knows that there is none.
struct Refusal(Error);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let status = match &error {
            Error::NotFound => StatusCode::NOT_FOUND,
            Error::InvalidId { .. } | Error::InvalidQuery { .. } => StatusCode::BAD_REQUEST,
            Error::AlreadyExists | Error::Conflict { .. } => StatusCode::CONFLICT,
            Error::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Error::LimitReached { .. } => StatusCode::FORBIDDEN,
            Error::Interrupted { .. } => StatusCode::GATEWAY_TIMEOUT,
            Error::Closed => StatusCode::SERVICE_UNAVAILABLE,
            error if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status.is_server_error() {
            // What lies beneath is for the log, not for the client.
            tracing::error!(error = &error as &dyn std::error::Error, "a request failed");
        }
        // Whoever may have posted should read the chat before posting again.
        let may_have_happened = error.outcome() == Outcome::MayHaveHappened;
        let body = Json(json!({ "error": error.to_string(), "may_have_happened": may_have_happened }));
        match status {
            StatusCode::SERVICE_UNAVAILABLE => (status, [(header::RETRY_AFTER, "1")], body).into_response(),
            _ => (status, body).into_response(),
        }
    }
}

/// Serves until `stop`; then answers what is in flight, and only then shuts the engine down.
async fn serve(
    path: &FilePath,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let engine = Engine::builder(path).idle_timeout(IDLE_TIMEOUT).open().await?;
    let served = axum::serve(listener, routes(engine.clone())).with_graceful_shutdown(stop).await;
    engine.shutdown().await?;
    Ok(served?)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => demonstrate().await,
        ["--serve", path, address] => {
            let listener = TcpListener::bind(address).await?;
            println!("serving {path} on http://{} until Ctrl-C or SIGTERM", listener.local_addr()?);
            let mut terminate = signal(SignalKind::terminate())?;
            let told_to_end = async move {
                tokio::select! {
                    _ = tokio::signal::ctrl_c() => {}
                    _ = terminate.recv() => {}
                }
            };
            serve(path.as_ref(), listener, told_to_end).await
        }
        _ => bail!("usage: chat_service [--serve PATH ADDRESS]"),
    }
}

// The demonstration.

const USERS: [&str; 6] = ["ada", "bob", "cleo", "dan", "eve", "finn"];
const MESSAGES_PER_USER: usize = 40;

async fn demonstrate() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("chats.db");

    let (client, stop, serving) = start(&path).await?;
    let chats = vec![client.create("ada", "tea").await?, client.create("ada", "chess").await?];
    let writers: Vec<_> = USERS.iter().map(|&user| tokio::spawn(write(client.clone(), user, chats.clone()))).collect();
    for writer in writers {
        writer.await??;
    }
    println!("{} people posted {MESSAGES_PER_USER} messages each into both of ada's chats, all at once", USERS.len());
    check(&client, &chats).await?;

    let gone = client.create("bob", "a mistake").await?;
    let too_long = json!({ "from": "bob", "text": "o".repeat(1_100_000) });
    for (method, path, body, expected) in [
        (Method::GET, "/chats/unknown", Value::Null, StatusCode::NOT_FOUND),
        (Method::GET, "/chats/%07", Value::Null, StatusCode::BAD_REQUEST),
        (Method::POST, &format!("/chats/{gone}/messages"), too_long, StatusCode::PAYLOAD_TOO_LARGE),
        (Method::DELETE, &format!("/chats/{gone}"), Value::Null, StatusCode::NO_CONTENT),
        (Method::GET, &format!("/chats/{gone}"), Value::Null, StatusCode::NOT_FOUND),
    ] {
        let (status, answer) = client.send(method.clone(), path, &body).await?;
        ensure!(status == expected, "{method} {path}: {status}, not {expected}");
        println!("{method} {path}: {status}, {}", answer["error"].as_str().unwrap_or("and gone"));
    }

    drop(stop);
    serving.await??;
    println!("stopped; starting again on the same file");
    let (client, stop, serving) = start(&path).await?;
    check(&client, &chats).await?;
    let (status, _) = client.send(Method::GET, &format!("/chats/{gone}"), &Value::Null).await?;
    ensure!(status == StatusCode::NOT_FOUND, "the deleted chat came back: {status}");
    println!("every message survived the restart, and what was deleted stayed so");
    drop(stop);
    serving.await?
}

/// Posts one user's messages, into the chats in turn.
async fn write(client: Client, user: &'static str, chats: Vec<String>) -> anyhow::Result<()> {
    for n in 0..MESSAGES_PER_USER {
        for chat in &chats {
            let message = json!({ "from": user, "text": n.to_string() });
            let (status, answer) = client.send(Method::POST, &format!("/chats/{chat}/messages"), &message).await?;
            ensure!(status == StatusCode::CREATED, "{user} was refused: {status} {answer}");
        }
    }
    Ok(())
}

/// Checks that every chat has every message once, each user's in order, and a touch for each.
async fn check(client: &Client, chats: &[String]) -> anyhow::Result<()> {
    let expected: Vec<String> = (0..MESSAGES_PER_USER).map(|n| n.to_string()).collect();
    for chat in chats {
        let (_, chat) = client.send(Method::GET, &format!("/chats/{chat}"), &Value::Null).await?;
        let messages: Vec<Message> = serde_json::from_value(chat["messages"].clone())?;
        ensure!(messages.len() == USERS.len() * MESSAGES_PER_USER, "{} messages", messages.len());
        ensure!(chat["touches"] == messages.len(), "{} touches", chat["touches"]);
        for user in USERS {
            let texts = messages.iter().filter(|message| message.from == user).map(|message| &message.text);
            ensure!(texts.eq(&expected), "messages of {user} are missing or out of order");
        }
        println!("{}: {} messages, {} touches", chat["title"], messages.len(), chat["touches"]);
    }
    let (_, listed) = client.send(Method::GET, "/users/ada/chats", &Value::Null).await?;
    ensure!(listed["chats"].as_array().is_some_and(|listed| listed.len() == chats.len()), "ada's list: {listed}");
    Ok(())
}

/// Starts the service. It stops when the sender is dropped.
async fn start(path: &FilePath) -> anyhow::Result<(Client, oneshot::Sender<()>, JoinHandle<anyhow::Result<()>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = Client { http: HttpClient::builder(TokioExecutor::new()).build_http(), to: listener.local_addr()? };
    let (stop, stopped) = oneshot::channel();
    let path = path.to_owned();
    let serving = tokio::spawn(async move { serve(&path, listener, async { drop(stopped.await) }).await });
    Ok((client, stop, serving))
}

#[derive(Clone)]
struct Client {
    http: HttpClient<HttpConnector, Body>,
    to: SocketAddr,
}

impl Client {
    async fn create(&self, owner: &str, title: &str) -> anyhow::Result<String> {
        let (_, answer) = self.send(Method::POST, "/chats", &json!({ "owner": owner, "title": title })).await?;
        Ok(answer["id"].as_str().context("an id")?.to_owned())
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<(StatusCode, Value)> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.to))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))?;
        let response = self.http.request(request).await?;
        let status = response.status();
        let body = to_bytes(Body::new(response.into_body()), usize::MAX).await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }
}
