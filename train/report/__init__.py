"""The files by which a run explains itself: pictures, tables, report.html, TensorBoard events.

One file here per kind. `html.write(folder)` puts everything that lies in a run's folder into one page.
"""
