'use strict';
// Sorting: a click, or Enter and Space, on a heading; what is missing is last.
for (const table of document.querySelectorAll('table.sortable')) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, at) => {
    head.firstElementChild.addEventListener('click', () => {
      const number = head.classList.contains('num');
      const was = head.getAttribute('aria-sort');
      const order = was === 'ascending' ? 'descending'
        : was === 'descending' ? 'ascending' : number ? 'descending' : 'ascending';
      for (const other of heads) other.setAttribute('aria-sort', 'none');
      head.setAttribute('aria-sort', order);
      const sign = order === 'ascending' ? 1 : -1;
      const key = (row) => row.cells[at].dataset.key;
      const compare = (x, y) => {
        const a = key(x), b = key(y);
        if (a === '' || b === '') return (a === '') - (b === '');
        return sign * (number ? a - b : a.localeCompare(b, 'en', {numeric: true}));
      };
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort(compare));
    });
  });
}
// Side by side: the answers of the two settings that are chosen.
const chosen = [...document.querySelectorAll('select.side')];
const show = () => {
  const places = chosen.map((select) => select.value);
  for (const answer of document.querySelectorAll('.answers > [data-place]')) {
    const at = places.indexOf(answer.dataset.place);
    answer.hidden = at < 0;
    answer.style.order = at;
  }
};
for (const select of chosen) select.addEventListener('change', show);
if (chosen.length) show();
