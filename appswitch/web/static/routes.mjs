// The way of each edge: from the side of a card to the side of another, past the cards between. Pure.
//
// Edges leave and enter a card spread along its side, in the order of where they go. One that has columns between its ends passes
// each in a gap between two cards, the one nearest to its straight way. So a way is a chain of Bezier curves, which are
// level where they meet.

const LABEL = { width: 62, height: 18 };
const BESIDE = 9; // how far from a card an edge passes it, which is half a gap
const APART = 4; // between two that pass in the same gap
const NEAR_COLUMN = 12; // before and behind a column an edge is level

/**
 * @param {object[]} edges  of a graph  @param {Map<string, {x, y, width, height}>} cards  where both ends of each are
 * @returns {Map<string, {path: string, label: ?{x, y: number}}>}  by the edge's key; `label` is the middle of a place for
 *   a label: each denied edge has one, an allowed one if it has a rate, and if a place covers nothing else
 */
export function routeEdges(edges, cards) {
  const ports = spread(edges, cards);
  const columns = columnsOf(cards);
  const boxes = [...cards.values()];
  const taken = [];
  const routes = new Map();
  for (const edge of [...edges].sort(weightiest)) {
    const curves = chain(ports.get(`${edge.key} out`), ports.get(`${edge.key} in`), columns);
    const wanted = edge.denied || edge.rate > 0;
    const label = (wanted && placeLabel(curves, boxes, taken)) || (edge.denied ? pointAt(curves[0], 0.5) : null);
    routes.set(edge.key, { path: pathOf(curves), label });
  }
  return routes;
}

function weightiest(one, other) {
  return other.denied - one.denied || other.total - one.total || (one.key < other.key ? -1 : 1);
}

function spread(edges, cards) {
  const sides = new Map();
  for (const edge of edges) {
    const [from, to] = [cards.get(edge.from), cards.get(edge.to)];
    const [leave, arrive] = to.x > from.x ? ["right", "left"] : to.x < from.x ? ["left", "right"] : ["right", "right"];
    for (const end of [{ name: "out", card: edge.from, side: leave, other: to }, { name: "in", card: edge.to, side: arrive, other: from }]) {
      const side = `${end.card} ${end.side}`;
      if (!sides.has(side)) sides.set(side, []);
      sides.get(side).push({ ...end, key: edge.key });
    }
  }
  const ports = new Map();
  for (const ends of sides.values()) {
    ends.sort((one, other) => one.other.y - other.other.y || one.other.x - other.other.x || (one.key < other.key ? -1 : 1));
    ends.forEach(({ key, name, card, side }, at) => {
      const box = cards.get(card);
      const y = box.y + (box.height * (at + 1)) / (ends.length + 1);
      ports.set(`${key} ${name}`, { x: side === "right" ? box.x + box.width : box.x, y, out: side === "right" ? 1 : -1 });
    });
  }
  return ports;
}

/** Columns of cards from left to right: left and right edge, the cards, and at which heights edges pass. */
function columnsOf(cards) {
  const columns = new Map();
  for (const card of cards.values()) {
    if (!columns.has(card.x)) columns.set(card.x, { left: card.x, right: card.x + card.width, cards: [], passing: [] });
    columns.get(card.x).cards.push(card);
  }
  return [...columns.values()].sort((one, other) => one.left - other.left);
}

/** The curves from one port to another. */
function chain(start, end, columns) {
  if (start.out === end.out) return [bow(start, end)];
  const rightwards = start.x < end.x;
  const between = columns.filter(({ left, right }) => Math.min(start.x, end.x) <= left && right <= Math.max(start.x, end.x));
  const curves = [];
  let at = start;
  for (const column of rightwards ? between : between.reverse()) {
    const [near, far] = [column.left - NEAR_COLUMN, column.right + NEAR_COLUMN];
    const [enter, leave] = rightwards ? [near, far] : [far, near];
    const straight = at.y + ((end.y - at.y) * (enter - at.x)) / (end.x - at.x);
    const y = pass(column, straight);
    curves.push(swing(at, { x: enter, y }), swing({ x: enter, y }, { x: leave, y }));
    at = { x: leave, y };
  }
  return [...curves, swing(at, end)];
}

/** The height nearest to `wanted` at which a column has no card and no other edge passes. */
function pass({ cards, passing }, wanted) {
  const hit = (y) => cards.find((card) => y > card.y - BESIDE + APART && y < card.y + card.height + BESIDE - APART);
  const card = hit(wanted);
  const sides = card ? [card.y - BESIDE, card.y + card.height + BESIDE] : [wanted];
  sides.sort((one, other) => Math.abs(one - wanted) - Math.abs(other - wanted));
  const tries = [0, APART, -APART, 2 * APART, -2 * APART].flatMap((off) => sides.map((side) => side + off));
  const y = tries.find((height) => !hit(height) && passing.every((other) => Math.abs(other - height) >= APART)) ?? sides[0];
  passing.push(y);
  return y;
}

function swing(from, to) {
  const pull = (to.x - from.x) * 0.5;
  return [from, { x: from.x + pull, y: from.y }, { x: to.x - pull, y: to.y }, to];
}

/** From a side to the same side of a card of the same column. */
function bow(from, to) {
  const pull = from.out * (34 + Math.min(44, Math.abs(to.y - from.y) * 0.12));
  return [from, { x: from.x + pull, y: from.y }, { x: to.x + pull, y: to.y }, to];
}

function pathOf(curves) {
  const word = ({ x, y }) => `${round(x)},${round(y)}`;
  return `M${word(curves[0][0])}${curves.map(([, one, two, end]) => `C${word(one)} ${word(two)} ${word(end)}`).join("")}`;
}

function pointAt([a, b, c, d], t) {
  const s = 1 - t;
  const mix = (axis) => s ** 3 * a[axis] + 3 * s * s * t * b[axis] + 3 * s * t * t * c[axis] + t ** 3 * d[axis];
  return { x: round(mix("x")), y: round(mix("y")) };
}

/** The first place along a way where a label covers neither a card nor another label; null if there is none. */
function placeLabel(curves, boxes, taken) {
  for (const t of [0.5, 0.4, 0.6, 0.3, 0.7, 0.22, 0.78]) {
    for (const curve of curves) {
      const at = pointAt(curve, t);
      const box = { x: at.x - LABEL.width / 2, y: at.y - LABEL.height / 2, ...LABEL };
      if (taken.some((other) => overlap(box, other)) || boxes.some((card) => overlap(box, card))) continue;
      taken.push(box);
      return at;
    }
  }
  return null;
}

function overlap(one, other) {
  const along = (axis, size) => one[axis] < other[axis] + other[size] && other[axis] < one[axis] + one[size];
  return along("x", "width") && along("y", "height");
}

function round(number) {
  return Math.round(number * 10) / 10;
}
