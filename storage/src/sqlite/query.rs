//! Filters as SQL. Every value is a parameter; the text depends only on which conditions there are, so it is prepared
//! once for each shape of filter.

use rusqlite::{ToSql, params_from_iter};

use crate::{
    backend::{Judging, ReadError},
    error::Cause,
    query::{Filter, Liveness, Order, Query, Span},
    record::Summary,
};

use super::{
    cause,
    open::Sqlite,
    rows::{COLUMNS, read_row},
};

/// The sessions of a user, `?1`: by the index, and among the rows from `?2` on, which may not be in it.
const BY_USER: &str = "(SELECT serial FROM session_of_user WHERE user = ?1 AND serial < ?2 \
     UNION ALL SELECT serial FROM session WHERE user = ?1 AND serial >= ?2) u \
     CROSS JOIN activity a ON a.serial = u.serial CROSS JOIN session s ON s.serial = a.serial AND s.user = ?1";

/// What a filter selects: from which tables, by which conditions, with their parameters in order.
struct Selection {
    from: &'static str,
    /// The column that has the row number.
    serial: &'static str,
    conditions: String,
    parameters: Vec<Box<dyn ToSql>>,
}

impl Selection {
    /// `wide`: from both tables, whatever the filter looks at.
    fn of(filter: &Filter, wide: bool, judging: Judging, backend: &Sqlite) -> Self {
        let wide = wide || filter.id_prefix.is_some() || !filter.except.is_empty() || !filter.metadata.is_empty();
        let (from, serial) = match &filter.user {
            Some(_) => (BY_USER, "u.serial"),
            None if wide => ("activity a JOIN session s ON s.serial = a.serial", "a.serial"),
            // Only the narrow table where that is enough.
            None => ("activity a", "a.serial"),
        };
        let mut this = Self { from, serial, conditions: String::new(), parameters: Vec::new() };
        if let Some(user) = &filter.user {
            this.parameters = vec![Box::new(user.clone()), Box::new(backend.user_index.from())];
        }
        this.and_alive(filter.liveness, judging);
        if let Some(prefix) = &filter.id_prefix {
            // A range rather than LIKE: it uses the index and takes every character for itself.
            this.and("s.id >= ?", [prefix.clone()]);
            this.and("substr(s.id, 1, length(?)) = ?", [prefix.clone(), prefix.clone()]);
        }
        if let Some(number) = filter.serial {
            this.and(&format!("{serial} = ?"), [number.get()]);
        }
        for id in &filter.except {
            this.and("s.id <> ?", [id.as_str().to_owned()]);
        }
        let mut span = |column: &str, span: Option<Span>| {
            if let Some(Span { from, until }) = span {
                this.and(&format!("{column} >= ?"), [from]);
                this.and(&format!("{column} < ?"), [until]);
            }
        };
        span("a.created_at", filter.created);
        span("a.last_active_at", filter.active);
        for (key, value) in &filter.metadata {
            let sql = "EXISTS (SELECT 1 FROM json_each(CASE WHEN json_valid(s.metadata) THEN s.metadata END) WHERE json_each.key = ? AND json_each.value = ?)";
            this.and(sql, [key.clone(), value.clone()]);
        }
        this
    }

    /// Stamps from the future have age zero, so they are compared by subtraction from now.
    fn and_alive(&mut self, liveness: Liveness, Judging { now, defaults }: Judging) {
        // NULL where nothing ends the session: coalesce makes that "alive".
        let over = "coalesce(a.last_active_at + coalesce(a.idle_timeout, ?) <= ?, 0) \
                    OR coalesce(coalesce(a.expires_at, a.created_at + ?) <= ?, 0)";
        let sql = match liveness {
            Liveness::Alive => format!("NOT ({over})"),
            Liveness::Over => format!("({over})"),
        };
        self.and(&sql, [defaults.idle_timeout, Some(now), defaults.lifetime, Some(now)]);
    }

    fn and<T: ToSql + 'static, const N: usize>(&mut self, sql: &str, parameters: [T; N]) {
        self.conditions.push_str(if self.conditions.is_empty() { " WHERE " } else { " AND " });
        self.conditions.push_str(sql);
        self.parameters.extend(parameters.map(|parameter| Box::new(parameter) as Box<dyn ToSql>));
    }
}

pub(super) fn count(backend: &Sqlite, filter: &Filter, judging: Judging) -> Result<u64, Cause> {
    let Selection { from, conditions, parameters, .. } = Selection::of(filter, false, judging, backend);
    let sql = format!("SELECT count(*) FROM {from}{conditions}");
    let count: i64 = backend
        .statement(&sql)?
        .query_row(params_from_iter(parameters), |row| row.get(0))
        .map_err(|error| cause(&error))?;
    Ok(count.cast_unsigned())
}

pub(super) fn next_end(backend: &Sqlite, judging: Judging) -> Result<Option<i64>, Cause> {
    // Of two arguments, min is NULL where one is; so each is made "never" first.
    let sql = "SELECT min(min(coalesce(last_active_at + coalesce(idle_timeout, ?1), ?3), \
               coalesce(expires_at, created_at + ?2, ?3))) FROM activity";
    let parameters = rusqlite::params![judging.defaults.idle_timeout, judging.defaults.lifetime, i64::MAX];
    backend.statement(sql)?.query_row(parameters, |row| row.get(0)).map_err(|error| cause(&error))
}

pub(super) fn matching(
    backend: &Sqlite,
    filter: &Filter,
    judging: Judging,
    after: i64,
    until: i64,
    limit: usize,
) -> Result<Vec<i64>, Cause> {
    let mut selection = Selection::of(filter, false, judging, backend);
    let serial = selection.serial;
    selection.and(&format!("{serial} > ?"), [after]);
    selection.and(&format!("{serial} <= ?"), [until]);
    let Selection { from, conditions, parameters, .. } = selection;
    let limit = limit.min(i64::MAX as usize);
    let sql = format!("SELECT {serial} FROM {from}{conditions} ORDER BY {serial} LIMIT {limit}");
    let mut statement = backend.statement(&sql)?;
    let rows = statement.query_map(params_from_iter(parameters), |row| row.get(0));
    rows.and_then(Iterator::collect).map_err(|error| cause(&error))
}

pub(super) fn list(backend: &Sqlite, query: &Query, judging: Judging) -> Result<Vec<Summary>, ReadError> {
    let mut selection = Selection::of(&query.filter, true, judging, backend);
    let (key, direction, after) = match query.order {
        Order::Oldest => ("a.created_at", "ASC", ">"),
        Order::Newest => ("a.created_at", "DESC", "<"),
        Order::RecentlyActive => ("a.last_active_at", "DESC", "<"),
    };
    if let Some(cursor) = query.after {
        selection.and(&format!("({key}, a.serial) {after} (?, ?)"), [cursor.key, cursor.serial]);
    }
    let Selection { from, conditions, parameters, .. } = selection;
    let sql = format!(
        "SELECT {COLUMNS}, octet_length(s.data) FROM {from}{conditions} \
         ORDER BY {key} {direction}, a.serial {direction} LIMIT {}",
        query.limit
    );
    let mut statement = backend.statement(&sql)?;
    let mut rows = statement.query(params_from_iter(parameters)).map_err(|error| cause(&error))?;
    let mut page = Vec::new();
    while let Some(row) = rows.next().map_err(|error| cause(&error))? {
        let (mut stored, activity) = read_row(row, &backend.touch_log)?;
        // NULL for data that is NULL, which the schema forbids.
        let Ok(in_row) = row.get::<_, i64>(10) else { return Err(ReadError::Corrupt(stored.serial)) };
        let data_bytes = backend.save_log.overlay(&mut stored).unwrap_or(in_row.cast_unsigned());
        let deadlines = judging.defaults.deadlines(&stored);
        page.push(Summary { stored, data_bytes, activity, deadlines });
    }
    Ok(page)
}
