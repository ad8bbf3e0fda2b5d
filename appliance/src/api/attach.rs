//! A machine's console for somebody who may type: a WebSocket on the API's socket, which carries what
//! [`koboshi_console::attach`] says.

use std::future::ready;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::{SinkExt, StreamExt};
use koboshi_console::attach::{Comes, Frame, May, attach};
use koboshi_console::{Handle, Person};

use super::Refusal;
use super::server::{Api, From, allow};
use crate::app::App;
use crate::ops::console;
use crate::rights::{Principal, Verb, may};
use crate::tickets::{GOOD, Ticket};

/// The longest message that is taken: a paste comes in several.
const MESSAGE: usize = 64 * 1024;
/// What waits to be sent to one who does not read.
const WAITS: usize = 128 * 1024;

/// Their addresses.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/console/attach", get(come)).route("/console/ticket", post(ticket))
}

async fn come(
    State(app): Api,
    ConnectInfo(caller): From,
    Query(query): Query<console::Query>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Refusal> {
    let (machine, line) = console::line(&app, &query.who, |machine| {
        allow(&caller, Verb::Watch, Some(machine.as_str()))
    })?;
    let name = caller.name();
    let Some(principal) = caller.0 else {
        return Err(Refusal::failed("who asks is not known"));
    };
    let who = Comes {
        person: Person { name, via: "cli".to_string() },
        may: may_type(principal, machine.to_string()),
        machine: machine.to_string(),
        last: query.last,
    };
    Ok(carry(&app, upgrade, line, who, ()))
}

/// Makes an address for a browser. It may what who asks for it may, or only look.
async fn ticket(
    State(app): Api,
    ConnectInfo(caller): From,
    Json(query): Json<console::Browse>,
) -> Result<Json<console::Address>, Refusal> {
    let (machine, _) = console::line(&app, &query.who, |machine| {
        allow(&caller, Verb::Watch, Some(machine.as_str()))
    })?;
    let Some(by) = caller.0 else { return Err(Refusal::failed("who asks is not known")) };
    let machine = machine.to_string();
    let types = !query.watch && may(&by, Verb::Type, Some(&machine));
    let ticket = Ticket { by, machine: machine.clone(), types };
    let Some(text) = app.tickets.make(ticket, Instant::now()) else {
        let help = format!("each is good for {} s: try again then", GOOD.as_secs());
        return Err(Refusal::conflict("too many tickets wait to be used", Some(help)));
    };
    let url = format!("http://{}/console/{machine}#{text}", app.site.load().admin.listen);
    Ok(Json(console::Address { url, types, seconds: GOOD.as_secs() }))
}

/// Whether he may type there, whenever it is asked.
pub(crate) fn may_type(principal: Principal, machine: String) -> May {
    May::new(move || match may(&principal, Verb::Type, Some(&machine)) {
        true => Ok(()),
        false => Err("you may watch this line, and not type".to_string()),
    })
}

/// Lets him in by this WebSocket, until he goes or the appliance ends. `holds` is dropped then.
pub fn carry<H: Send + 'static>(
    app: &App,
    upgrade: WebSocketUpgrade,
    line: Handle,
    who: Comes,
    holds: H,
) -> Response {
    let cancel = app.cancel.clone();
    tracing::debug!(machine = who.machine, by = %who.person, "somebody comes to its console");
    let upgrade = upgrade.max_message_size(MESSAGE).max_frame_size(MESSAGE);
    upgrade.write_buffer_size(0).max_write_buffer_size(WAITS).on_upgrade(async move |socket| {
        let _he_goes_or_we_do = cancel.run_until_cancelled(sees(socket, &line, who)).await;
        drop(holds);
    })
}

async fn sees(socket: WebSocket, line: &Handle, who: Comes) {
    let (to, from) = socket.split();
    let from = from.scan((), |(), message| ready(message.ok())).filter_map(|message| {
        ready(match message {
            Message::Binary(bytes) => Some(Frame::Characters(bytes)),
            Message::Text(text) => Some(Frame::Control(text.to_string())),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => None,
        })
    });
    let to = to.with(|frame| {
        ready(Ok::<_, axum::Error>(match frame {
            Frame::Characters(bytes) => Message::Binary(bytes),
            Frame::Control(text) => Message::Text(text.into()),
        }))
    });
    attach(line, who, from, to).await;
}
