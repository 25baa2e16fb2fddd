// What every page has: numbers drawn from the seed behind the `#`, an end, and an account of itself.
window.mmrl = (() => {
  let drawn = Number(location.hash.slice(1)) || 0;
  let outcome = 0, done = false;
  // Mulberry32: a 32-bit generator in a few lines, the same in every browser.
  const random = () => {
    drawn = (drawn + 0x6d2b79f5) | 0;
    let t = Math.imul(drawn ^ (drawn >>> 15), 1 | drawn);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const below = n => Math.floor(random() * n);
  const shuffled = items => {
    const left = [...items];
    return items.map(() => left.splice(below(left.length), 1)[0]);
  };
  const end = good => { if (!done) { done = true; outcome = good ? 1 : 0; } };
  const middle = element => {
    const r = element.getBoundingClientRect();
    const box = [r.left, r.top, r.right, r.bottom];
    return { x: r.left + r.width / 2, y: r.top + r.height / 2, box };
  };
  const state = () => {
    const fields = [...document.querySelectorAll('input')].map(e => `${e.id}=${e.value}`);
    const active = document.activeElement, focus = active ? active.id : '';
    // Where the next letter goes.
    const caret = active && active.selectionStart !== undefined
      ? `@${active.selectionStart}-${active.selectionEnd}` : '';
    const words = document.body.innerText.replace(/\s+/g, ' ');
    return {
      key: [location.pathname.split('/').pop(), location.hash, scrollX, scrollY, ...fields, words,
        `focus=${focus}${caret}`, mmrl.more(), done].join('|'),
      outcome, done,
    };
  };
  // An element of a page, at x, y and so wide and high.
  const put = (tag, id, text, [x, y, width, height], click) => {
    const made = document.createElement(tag);
    made.id = id;
    made.textContent = text;
    made.style.cssText = `position:absolute;left:${x}px;top:${y}px;width:${width}px;` +
      `height:${height}px;box-sizing:border-box;margin:0;padding:2px 4px;font:16px sans-serif;` +
      'border:1px solid #888;background:#eee;text-align:center;overflow:hidden';
    if (click) made.addEventListener('click', click);
    document.body.append(made);
    return made;
  };
  const press = element => ({ type: 'click', ...middle(element) });
  // `more` is what a page's state has besides what is read on it.
  return { below, shuffled, end, middle, state, put, press, goal: '', more: () => '',
    oracle: () => null };
})();
