// Sphinx builds the rule for plurals from a text, which every page forbids itself. Chinese has one form, the first.
Documentation.addTranslations = ({ messages, locale }) => {
  Object.assign(Documentation.TRANSLATIONS, messages);
  Object.assign(Documentation, { PLURAL_EXPR: () => 0, LOCALE: locale });
};

// Words of a Chinese query. Sphinx cuts a query at spaces and punctuation alone, while its index holds single words:
// here a run of Chinese characters is cut into the longest words that the index knows. searchtools.js calls this.
function splitQuery(query) {
  const { terms, titleterms } = Search._index;
  const known = (word) => Object.hasOwn(terms, word) || Object.hasOwn(titleterms, word);
  const words = (run) => {
    const found = [];
    for (let start = 0; start < run.length;) {
      let end = run.length;
      while (end > start && !known(run.slice(start, end))) end -= 1;
      if (end > start) found.push(run.slice(start, end));
      start = Math.max(end, start + 1);
    }
    return found.length ? found : [run];
  };
  return (query.match(/\p{Script=Han}+|(?:(?!\p{Script=Han})[\p{Letter}\p{Number}_])+/gu) ?? [])
    .flatMap((run) => /\p{Script=Han}/u.test(run) ? words(run) : [run]);
}
