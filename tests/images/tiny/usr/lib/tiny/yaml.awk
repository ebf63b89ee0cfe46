function esc(v) { gsub(/\\/, "\\\\", v); return v }
function trim(v) { sub(/^[ \t]+/, "", v); sub(/[ \t]+$/, "", v); return v }
function unq(v,  q) {
  v = trim(v); q = substr(v, 1, 1)
  if (q == "\"" || q == "'") {
    sub(/[ \t]+#.*$/, "", v)
    if (length(v) > 1 && substr(v, length(v)) == q) v = substr(v, 2, length(v) - 2)
    if (q == "'") gsub(/''/, "'", v); else { gsub(/\\"/, "\"", v); return v }   # \n stays an escape
    return esc(v)
  }
  sub(/[ \t]+#.*$/, "", v)
  return esc(v)
}
function emit(p, v) { print substr(p, 2) "\t" v }
function push(i, t, p) { n++; sind[n] = i; stype[n] = t; spath[n] = p }
function value(i, p, v,  a, k, m) {
  if (v ~ /^[|>][-+0-9]*[ \t]*(#.*)?$/) { inblk = 1; bind = i; bpath = p; blk = ""; blkind = -1; fold = (v ~ /^>/); strp = (v ~ /-/) ; pend = "" }
  else if (v ~ /^\[.*\]$/) { m = split(substr(v, 2, length(v) - 2), a, ","); for (k = 1; k <= m; k++) if (trim(a[k]) != "") emit(p "/" (k - 1), unq(a[k])) }
  else emit(p, unq(v))
}
function endblk() { if (strp) sub(/\\n$/, "", blk); emit(bpath, blk); inblk = 0 }
function parse(i, s,  p, k, v, c, sp) {
  if (s ~ /^-([ \t]|$)/) {
    while (n > 0 && (sind[n] > i || (sind[n] == i && stype[n] == "i"))) n--
    p = spath[n] "/" (cnt[spath[n]] + 0); cnt[spath[n]]++
    push(i, "i", p)
    v = substr(s, 2); sp = match(v, /[^ \t]/); if (!sp) return
    parse(i + sp, substr(v, sp)); return
  }
  if (match(s, /^("[^"]*"|'[^']*'|[^ "'\[{#&*!|>%@`][^:]*|[^ :]+):([ \t]|$)/)) {
    c = index(s, ": "); if (s ~ /^["']/) { c = RLENGTH; if (substr(s, c, 1) != ":") c-- } else if (!c) c = length(s)
    while (n > 0 && sind[n] >= i) n--
    k = unq(substr(s, 1, c - 1)); v = trim(substr(s, c + 1)); p = spath[n] "/" k
    if (v == "" || v ~ /^#/) push(i, "k", p); else value(i, p, v)
    return
  }
  value(stype[n] == "i" ? sind[n] : i, spath[n], s)
}
BEGIN { n = 0; spath[0] = "" }
{
  sub(/\r$/, "")
  if (inblk) {
    if ($0 ~ /^[ \t]*$/) { pend = pend "\\n"; next }
    ind = match($0, /[^ ]/) - 1
    if (ind > bind) {
      if (blkind < 0) blkind = ind
      blk = blk pend esc(substr($0, blkind + 1)) (fold ? " " : "\\n"); pend = ""; next
    }
    endblk()
  }
  if ($0 ~ /^[ \t]*(#|$)/ || $0 ~ /^(---|\.\.\.)/) next
  ind = match($0, /[^ ]/) - 1
  parse(ind, substr($0, ind + 1))
}
END { if (inblk) endblk() }
