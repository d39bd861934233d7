module mlops/pause

go 1.26.0
