"""From public raw data to records: what all files of `mmrl.data_recipes` share.

`Source` reads the raw folder, `Recipe` says what a data set is and how its rows become items,
`writer.write` turns items into records, media and a manifest.
"""
