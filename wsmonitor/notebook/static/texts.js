// Text of others made readable: JSON laid out, terminal codes taken out, sizes and numbers in words. Pure.

const WIDE = 56; // characters of a list or an object that stays on one line
const FLAT = /[[{](?:[^[\]{}"]|"(?:[^"\\]|\\.)*")*[\]}]/y;
const SPACES = /("(?:[^"\\]|\\.)*")|\s+/g;
// CSI, OSC and the shorter escapes of ECMA-48, and the control characters but tab and newline.
// eslint-disable-next-line no-control-regex
const CODES = /\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]|[\x00-\x08\x0b-\x1f\x7f]/g;

/** Without colours and other codes for terminals. */
export function plainText(words) {
  return String(words).replace(CODES, "");
}

/**
 * JSON text with line breaks and indentation. Only white space is changed: numbers beyond 2^53 and
 * doubled keys stay what they are, and the beginning of a text is laid out as well as a whole one.
 */
export function layOut(json) {
  const out = [];
  let depth = 0;
  const line = () => out.push("\n" + "  ".repeat(Math.min(depth, 60)));
  for (let i = 0; i < json.length;) {
    const c = json[i];
    if (c === '"') {
      let j = i + 1;
      while (j < json.length && json[j] !== '"') j += json[j] === "\\" ? 2 : 1;
      out.push(json.slice(i, j + 1));
      i = j + 1;
      continue;
    }
    if (c === "{" || c === "[") {
      FLAT.lastIndex = 0;
      const near = json.slice(i, i + 2 * WIDE);
      const short = FLAT.exec(near);
      if (short) {
        const told = short[0].replace(SPACES, (all, string) => string || "").replace(/("(?:[^"\\]|\\.)*")|([,:])/g, (all, string, mark) => string || `${mark} `);
        if (told.length <= WIDE) {
          out.push(told);
          i += short[0].length;
          continue;
        }
      }
      depth += 1;
      out.push(c);
      line();
    } else if (c === "}" || c === "]") {
      depth = Math.max(0, depth - 1);
      line();
      out.push(c);
    } else if (c === ",") {
      out.push(c);
      line();
    } else if (c === ":") out.push(": ");
    else if (!/\s/.test(c)) out.push(c);
    i += 1;
  }
  return out.join("");
}

/** A number of bytes: "512 B", "4 KiB", "18.2 MiB". */
export function bytes(n) {
  if (n < 1024) return `${Math.floor(n)} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let unit = -1;
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return `${n.toFixed(1).replace(/\.0$/, "")} ${units[unit]}`;
}

/** A measured number, short: "18.4 M", "12,400", "0.0312", "1.2e-9". */
export function figure(n) {
  if (!Number.isFinite(n)) return String(n);
  const size = Math.abs(n);
  if (size >= 1e15) return n.toExponential(2);
  for (const [unit, by] of [["T", 1e12], ["G", 1e9], ["M", 1e6]]) if (size >= by) return `${Math.round((n / by) * 10) / 10} ${unit}`;
  if (Number.isInteger(n)) return n.toLocaleString();
  if (size < 1e-4) return n.toExponential(2);
  return Number(n.toPrecision(size >= 1000 ? 6 : 4)).toLocaleString(undefined, { maximumFractionDigits: 8 });
}
