// Where the states stand and how the ways between them run: beside each other where there is room, else below.

const WIDE = 700;

/** Places of the states for so many pixels: {nodes: {state: {x, y, w, h}}, height, wide}; x and y are the centres. */
export function shape(width) {
  return width >= WIDE ? beside(width) : below(width);
}

function beside(width) {
  const w = Math.max(120, Math.min(176, width * 0.15));
  const [h, small] = [72, { w: Math.min(136, width * 0.12), h: 48 }];
  const [first, second, third, last] = [0.235 * width, 0.47 * width, 0.705 * width, width - w / 2 - 2];
  const [above, beneath] = [76, 246];
  return {
    wide: true,
    height: 332,
    nodes: {
      new: { x: 30, y: above, w: 60, h: 40 },
      reserving: { x: first, y: above, w, h },
      awaiting_payment: { x: second, y: above, w, h },
      confirmed: { x: third, y: above, w, h },
      completed: { x: last, y: above, w, h },
      payment_retry: { x: second, y: beneath, w, h },
      cancelled: { x: third, y: beneath, w, h },
      closed: { x: last, y: beneath, w, h },
      parked: { x: 0.09 * width, y: 186, ...small },
      confirming: { x: (second + third) / 2, y: 26, ...small },
      cancelling: { x: (second + third) / 2, y: 162, ...small },
    },
  };
}

function below(width) {
  const w = Math.min(150, width * 0.38);
  const [h, small] = [62, { w: Math.min(104, width * 0.27), h: 48 }];
  const [left, right] = [width * 0.34, width - w / 2 - 14];
  return {
    wide: false,
    height: 560,
    nodes: {
      new: { x: left, y: 16, w: 66, h: 30 },
      reserving: { x: left, y: 96, w, h },
      awaiting_payment: { x: left, y: 226, w, h },
      payment_retry: { x: right, y: 226, w, h },
      confirmed: { x: left, y: 396, w, h },
      completed: { x: left, y: 526, w, h },
      cancelled: { x: right, y: 396, w, h },
      closed: { x: right, y: 526, w, h },
      parked: { x: right, y: 30, ...small },
      confirming: { x: small.w / 2 + 2, y: 312, ...small },
      cancelling: { x: width * 0.58, y: 312, ...small },
    },
  };
}

/** The path of a way, as SVG says it. Two ways between the same states lie beside each other. */
export function path(way, { nodes, wide }) {
  const [a, b] = [nodes[way.from], nodes[way.to]];
  switch (way.id) {
    case "awaiting_payment-payment_retry":
      return wide ? upright(a, b, -0.24) : sideways(a, b, -0.2);
    case "payment_retry-awaiting_payment":
      return wide ? upright(a, b, 0.06) : sideways(a, b, 0.2);
    case "completed-cancelled":
      return curve(a.x - a.w * 0.3, a.y + a.h / 2, b.x + b.w * 0.3, b.y - b.h / 2, true);
    case "reserving-cancelled":
      return wide ? beneath(a, b, nodes.payment_retry) : past(a, b, nodes.payment_retry);
    case "awaiting_payment-cancelled":
      return wide ? corner(a, b) : curve(a.x + a.w * 0.3, a.y + a.h / 2, b.x - b.w * 0.3, b.y - b.h / 2, true);
    case "parked-reserving":
      return curve(a.x, a.y - a.h / 2, b.x - b.w * 0.3, b.y + b.h / 2, true);
    default:
      return wide && Math.abs(a.y - b.y) < 150 ? flat(a, b) : upright(a, b, 0);
  }
}

/** From the right side to the left side. */
function flat(a, b) {
  const [x1, x2] = [a.x + a.w / 2, b.x - b.w / 2];
  return x1 < x2 - 8 ? curve(x1, a.y, x2, b.y, false) : upright(a, b, 0);
}

/** From below to above, or from above to below. */
function upright(a, b, part) {
  const down = b.y > a.y ? 1 : -1;
  return curve(a.x + a.w * part, a.y + (down * a.h) / 2, b.x + b.w * part, b.y - (down * b.h) / 2, true);
}

function sideways(a, b, part) {
  const right = b.x > a.x ? 1 : -1;
  return curve(a.x + (right * a.w) / 2, a.y + a.h * part, b.x - (right * b.w) / 2, b.y + b.h * part, false);
}

/** From below the one to the left side of the other. */
function corner(a, b) {
  const [x1, y1, x2, y2] = [a.x + a.w * 0.38, a.y + a.h / 2, b.x - b.w / 2, b.y - b.h * 0.28];
  return `M${x1} ${y1}C${x1} ${y2 - 12} ${x1 + (x2 - x1) * 0.35} ${y2} ${x2} ${y2}`;
}

/** Down, and along under the retry. */
function beneath(a, b, between) {
  const [x1, y1] = [a.x, a.y + a.h / 2];
  const [x2, y2] = [b.x - b.w * 0.25, b.y + b.h / 2];
  const low = between.y + between.h / 2 + 30;
  return `M${x1} ${y1}C${x1} ${low} ${x1 + 60} ${low} ${between.x - 40} ${low}L${between.x + 60} ${low}C${x2} ${low} ${x2} ${low} ${x2} ${y2}`;
}

/** Past the retry, along the edge. */
function past(a, b, between) {
  const edge = between.x + between.w / 2 + 8;
  const x1 = a.x + a.w / 2;
  return `M${x1} ${a.y}C${edge} ${a.y} ${edge} ${a.y} ${edge} ${between.y}C${edge} ${b.y - 110} ${b.x + b.w * 0.3} ${b.y - 90} ${b.x + b.w * 0.3} ${b.y - b.h / 2}`;
}

function curve(x1, y1, x2, y2, upright) {
  if (upright) {
    const middle = (y1 + y2) / 2;
    return `M${x1} ${y1}C${x1} ${middle} ${x2} ${middle} ${x2} ${y2}`;
  }
  const middle = (x1 + x2) / 2;
  return `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`;
}
