//! `sessile list`: which sessions there are.

use std::path::PathBuf;

use clap::{Args, ValueEnum, builder::RangedU64ValueParser};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};
use sessile::{Cursor, Filter, Order, Page, Query, SessionId, Summary};

use crate::{database, format, print};

/// List sessions, one page at a time, without their data.
///
/// Ids may be secrets: take care where the list goes.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The database. It must be one of this engine, and not open in another one.
    #[arg(long, value_name = "PATH")]
    db: PathBuf,
    /// Only sessions of this user.
    #[arg(long)]
    user: Option<String>,
    /// The size of the page, at most 1,000.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000))]
    limit: usize,
    /// Go on where the page before ended: the cursor it printed.
    #[arg(long, value_name = "CURSOR")]
    after: Option<Cursor>,
    /// Which sessions come first.
    #[arg(long, value_enum, default_value_t = Listing::Newest)]
    order: Listing,
    /// Print JSON: {"sessions": […], "next": CURSOR or null}.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Listing {
    /// The first created.
    Oldest,
    /// The last created.
    Newest,
    /// The last active.
    Active,
}

impl From<Listing> for Order {
    fn from(listing: Listing) -> Self {
        match listing {
            Listing::Oldest => Self::Oldest,
            Listing::Newest => Self::Newest,
            Listing::Active => Self::RecentlyActive,
        }
    }
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let mut filter = Filter::all();
    if let Some(user) = options.user {
        filter = filter.user(user);
    }
    let mut query = Query::new(filter).order(options.order.into()).limit(options.limit);
    if let Some(cursor) = options.after {
        query = query.after(cursor);
    }
    let engine = database::open(&options.db).await?;
    let page = engine.list(query).await;
    engine.shutdown().await?;
    let page = page?;
    print(&if options.json { as_json(&page) } else { as_table(&page) })
}

fn as_table(page: &Page) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header(["id", "user", "created", "last active", "touches", "data", "expires"]);
    for column in [4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for session in &page.items {
        table.add_row([
            name(session),
            session.user().map_or_else(|| "–".to_owned(), format::text),
            format::moment(session.created_at()),
            format::moment(session.last_active_at()),
            format::count(session.touch_count()),
            format::bytes(session.data_bytes() as f64),
            session.expires_at().map_or_else(|| "never".to_owned(), format::moment),
        ]);
    }
    let end = match &page.next {
        Some(cursor) => format!("sessions: {}; the next page: --after {cursor}", page.items.len()),
        None => format!("sessions: {}", page.items.len()),
    };
    format!("{table}\n{end}")
}

/// Names a session by its id, or by its public number where ids are kept hashed.
fn name(session: &Summary) -> String {
    session.id().map_or_else(|| format!("#{}", session.serial()), |id| format::text(id.as_str()))
}

fn as_json(page: &Page) -> String {
    let sessions: Vec<Value> = page
        .items
        .iter()
        .map(|session| {
            json!({
                "id": session.id().map(SessionId::as_str),
                "serial": session.serial(),
                "user": session.user(),
                "created_at": session.created_at().to_string(),
                "last_active_at": session.last_active_at().to_string(),
                "touch_count": session.touch_count(),
                "data_bytes": session.data_bytes(),
                "metadata": session.metadata(),
                "expires_at": session.expires_at().map(|at| at.to_string()),
            })
        })
        .collect();
    let page = json!({ "sessions": sessions, "next": page.next.map(|cursor| cursor.to_string()) });
    format::json(&page)
}
