/** A target's path as engines will read it, with its escapes undone, and its query. So no route has a second spelling that goes elsewhere. */
export function split(target: string): { readonly path: string; readonly search: string } {
  const mark = target.indexOf("?");
  const path = mark < 0 ? target : target.slice(0, mark);
  return { path: path.includes("%") ? unescaped(path) : path, search: mark < 0 ? "" : target.slice(mark + 1) };
}

function unescaped(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    // No UTF-8: no route of ours.
    return path;
  }
}
