// A page's time stands still until it is told to go on: dates, timers, frames, random numbers.
// Before any script of the page; `mmrlClock.run(ms)` carries out what falls due, in order.
window.mmrlClock = (() => {
  const epoch = 1700000000000, most = 20000;
  const frame = window.requestAnimationFrame.bind(window);
  const due = new Map();
  let now = 0, last = 0, drawn = 1;
  const add = (call, delay, every, given) => {
    due.set(++last, { at: now + Math.max(0, Number(delay) || 0), every, call, given });
    return last;
  };
  const forget = id => { due.delete(id); };
  const next = until => {
    let found = null;
    for (const [id, timer] of due)
      if (timer.at <= until && (!found || timer.at < found[1].at)) found = [id, timer];
    return found;
  };
  const carryOut = ({ call, given }) => {
    try {
      if (typeof call === 'function') call(...given); else (0, eval)(String(call));
    } catch (error) { console.error(error); }
  };
  const run = async span => {
    const until = now + span;
    for (let count = 0; count < most; count++) {
      const found = next(until);
      if (!found) break;
      const [id, timer] = found;
      now = Math.max(now, timer.at);
      if (timer.every === null) due.delete(id); else timer.at = now + timer.every;
      carryOut(timer);
      await null;
    }
    now = until;
  };
  const real = Date;
  window.Date = new Proxy(real, {
    construct: (_, given, made) => Reflect.construct(real, given.length ? given : [epoch + now],
      made === window.Date ? real : made),
    apply: () => new real(epoch + now).toString(),
    get: (_, name) => (name === 'now' ? () => epoch + now : Reflect.get(real, name)),
  });
  Object.defineProperty(window.performance, 'now', { value: () => now });
  window.setTimeout = (call, delay, ...given) => add(call, delay, null, given);
  window.setInterval = (call, delay, ...given) =>
    add(call, delay, Math.max(1, Number(delay) || 0), given);
  window.clearTimeout = window.clearInterval = window.cancelAnimationFrame = forget;
  window.requestAnimationFrame = call => add(() => call(now), 16 - (now % 16), null, []);
  // Mulberry32, until the page seeds another.
  Math.random = () => {
    drawn = (drawn + 0x6d2b79f5) | 0;
    let t = Math.imul(drawn ^ (drawn >>> 15), 1 | drawn);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return { run, frame };
})();
